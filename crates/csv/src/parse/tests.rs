#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

/// Cells that programs print, and others.
const CELLS: [&str; 40] = [
    "",
    "0",
    "7",
    "-1",
    "-0",
    "00",
    "007",
    "255",
    "256",
    "-128",
    "65535",
    "12345678",
    "123456789",
    "-2147483648",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "99999999999999999999",
    "1.5",
    "-0.25",
    ".5",
    "5.",
    "1e5",
    "-1.25e-7",
    "1234567.5",
    "12345678.25",
    "0.1234567890123456",
    "nan",
    "-inf",
    "true",
    "false",
    "True",
    "word",
    "a longer word than sixteen",
    "\"q\"",
    "\"a,b\"",
    "\"x\ny\"",
    "5\" pipe",
    "\"\"\"\"",
];

fn plan(kinds: &[ColumnType], ragged: Ragged, given: bool) -> Plan {
    let target = |(field, kind): (usize, &ColumnType)| Target {
        field,
        name: format!("c{field}"),
        kind: *kind,
        given,
        blank: false,
    };
    Plan {
        dialect: Dialect {
            delimiter: b',',
            point: b'.',
        },
        types: Types::default(),
        ragged,
        fields: (0..kinds.len()).map(|field| format!("c{field}")).collect(),
        targets: kinds.iter().enumerate().map(target).collect(),
    }
}

fn outcome(parsed: std::result::Result<Parsed, Failure>) -> String {
    match parsed {
        Ok(parsed) => format!("{parsed:?}"),
        Err(Failure::Misfit) => "misfit".to_owned(),
        Err(Failure::Error(error)) => error.to_string(),
    }
}

const KINDS: [ColumnType; 12] = [
    ColumnType::Bool,
    ColumnType::UInt8,
    ColumnType::UInt16,
    ColumnType::UInt32,
    ColumnType::UInt64,
    ColumnType::Int8,
    ColumnType::Int16,
    ColumnType::Int32,
    ColumnType::Int64,
    ColumnType::Float,
    ColumnType::Double,
    ColumnType::String,
];

proptest! {
    /// Column by column gives what record by record gives: values, counts, errors.
    #[test]
    fn both_orders_agree(
        columns in prop::collection::vec((0_usize..12, 0_usize..40), 1..6),
        odd in prop::collection::vec((0_usize..300, 0_usize..40), 0..4),
        rows in 1_usize..60,
        style in 0_usize..12,
    ) {
        let (end, ragged, given) = (["\n", "\r\n"][style % 2], [Ragged::Stop, Ragged::Skip, Ragged::Pad][style / 2 % 3], style >= 6);
        let kinds: Vec<ColumnType> = columns.iter().map(|(kind, _)| KINDS[*kind]).collect();
        // Cells that fit, with the columns' own numbers of digits, and here and there any cell, an empty line, a short or long record.
        let mut text = String::new();
        for row in 0..rows {
            let mut cells: Vec<String> = columns.iter().enumerate().map(|(field, (kind, seed))| {
                let value = (row * 7919 + seed * 104_729 + field) % [2, 10, 100, 127][seed % 4];
                match KINDS[*kind] {
                    ColumnType::Bool => ["true", "false"][value % 2].to_owned(),
                    ColumnType::Float | ColumnType::Double => format!("{value}.{seed}"),
                    ColumnType::String => CELLS[(row + seed) % 40].to_owned(),
                    _ => value.to_string(),
                }
            }).collect();
            for (place, cell) in &odd {
                if *place % rows == row {
                    match cell % 8 {
                        0 => text.push_str(end),
                        1 => cells.truncate(1),
                        2 => cells.push("1".to_owned()),
                        3 => cells[0].push('\r'),
                        _ => *cells.last_mut().unwrap() = CELLS[*cell].to_owned(),
                    }
                }
            }
            text.push_str(&cells.join(","));
            text.push_str(end);
        }
        let plan = plan(&kinds, ragged, given);
        prop_assert_eq!(outcome(parse(&plan, text.as_bytes(), 1)), outcome(in_order(&plan, text.as_bytes(), 1)), "{}", text);
    }

    /// Every single cell in every type.
    #[test]
    fn any_cell_in_any_type(cell in "[-+0-9.eE]{0,24}", filler in 0_usize..80) {
        for kind in KINDS {
            for given in [false, true] {
                let plan = plan(&[ColumnType::String, kind, ColumnType::String], Ragged::Stop, given);
                let text = format!("{},{cell},{}\n", "x".repeat(filler), "y".repeat(80 - filler));
                prop_assert_eq!(outcome(parse(&plan, text.as_bytes(), 1)), outcome(in_order(&plan, text.as_bytes(), 1)), "{}", text);
            }
        }
    }
}

#[test]
fn blocks_ends_and_returns_meet_anywhere() {
    let plan = plan(
        &[ColumnType::String, ColumnType::UInt8],
        Ragged::Stop,
        false,
    );
    for end in ["\n", "\r\n"] {
        for filler in 0..200 {
            let text = format!("{0},1{end}\"{0}\",22{end}{0},3{end}", "x".repeat(filler));
            let parsed = parse(&plan, text.as_bytes(), 1).unwrap();
            assert_eq!(parsed.rows, 3);
            assert_eq!(parsed.columns[1], Column::UInt8(vec![1, 22, 3]), "{text:?}");
        }
    }
}
