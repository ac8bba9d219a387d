//! `--name value` arguments, without a dependency.

use std::collections::HashMap;
use std::fmt::Display;
use std::process::exit;
use std::str::FromStr;

/// The arguments of the process; a name without a value is a switch.
pub struct Args {
    values: HashMap<String, String>,
}

impl Args {
    /// Reads the arguments of this process; ends it with status 2 where one is not an option of `allowed`.
    pub fn parse(allowed: &[&str]) -> Self {
        let mut values = HashMap::new();
        let mut words = std::env::args().skip(1).peekable();
        while let Some(word) = words.next() {
            let Some(name) = word
                .strip_prefix("--")
                .filter(|name| allowed.contains(name))
            else {
                fail(&format!(
                    "unknown argument {word}; allowed: --{}",
                    allowed.join(" --")
                ));
            };
            let value = words
                .next_if(|next| !next.starts_with("--"))
                .unwrap_or_else(|| "1".to_owned());
            values.insert(name.to_owned(), value);
        }
        Self { values }
    }

    /// The value of an option as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a switch was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of an option, or `default`.
    pub fn value<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> T {
        match self.values.get(name).map(|text| text.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(error)) => fail(&format!("--{name}: {error}")),
        }
    }
}

/// Ends the process with a message and status 2.
pub fn fail(message: &str) -> ! {
    eprintln!("{message}");
    exit(2)
}
