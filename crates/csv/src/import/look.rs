//! The first look: dialect, names, and types that are likely to hold everything.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tapeline_bcsv::ColumnType;

use super::{ImportOptions, ImportReport, Rows, Scan, chunks};
use crate::error::{Error, ErrorKind, Result};
use crate::infer::{Summary, Types};
use crate::parse::{Plan, Ragged, Target, parse, summarise};
use crate::records;
use crate::sniff::{Start, sniff};

/// Bytes of the first look.
const HEAD_BYTES: u64 = 1 << 20;
/// Further looks, and bytes of each.
const LOOKS: u64 = 9;
const LOOK_BYTES: u64 = 64 << 10;
/// Text that is looked at in one go.
const PIECE_BYTES: usize = 64 << 10;

/// Find dialect, names and first types.
pub(super) fn open(source: &Path, options: &ImportOptions) -> Result<Scan> {
    let mut file = File::open(source)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head)?;
    let whole = head.len() as u64 == bytes;
    let start = sniff(&head, &options.dialect)?;
    let mut plan = make_plan(&start, options)?;
    let mut seen = vec![Summary::default(); plan.targets.len()];
    let data = head.get(start.data_at..).unwrap_or_default();
    if options.rows == Rows::default() {
        look(&mut plan, data, whole, &mut seen);
        if !whole {
            for number in 1..=LOOKS {
                look_at(&mut plan, &mut file, bytes, number, &mut seen)?;
            }
        }
    } else {
        let mut chunks = chunks(
            source,
            &plan,
            start.data_at as u64,
            start.data_line,
            options.rows,
        )?;
        if let Some(chunk) = chunks.next(Vec::new())? {
            look(&mut plan, &chunk.bytes, true, &mut seen);
        }
    }
    Ok(Scan {
        report: ImportReport {
            rows: 0,
            rows_skipped: 0,
            rows_padded: 0,
            blank_lines: 0,
            dialect: start.dialect,
            columns: Vec::new(),
            renamed: start.renamed,
            passes: 0,
        },
        plan,
        data_at: start.data_at as u64,
        data_line: start.data_line,
        rows: options.rows,
    })
}

fn make_plan(start: &Start, options: &ImportOptions) -> Result<Plan> {
    let field_of = |name: &String| {
        let found = start.names.iter().position(|field| field == name);
        found.ok_or_else(|| Error::new(ErrorKind::UnknownColumn { name: name.clone() }))
    };
    for (name, _) in &options.given {
        field_of(name)?;
    }
    let wanted: Vec<usize> = match &options.columns {
        Some(names) => names.iter().map(field_of).collect::<Result<_>>()?,
        None => (0..start.names.len()).collect(),
    };
    if let Some(kinds) = &options.given_in_order
        && kinds.len() != start.names.len()
    {
        let what = format!(
            "{} types are given for {} columns",
            kinds.len(),
            start.names.len()
        );
        return Err(Error::new(ErrorKind::Option { what }));
    }
    let kind_of = |field: usize, name: &str| {
        let by_name = options.given.iter().find(|(other, _)| other == name);
        let in_order = options
            .given_in_order
            .as_ref()
            .and_then(|kinds| kinds.get(field).copied().flatten());
        by_name
            .map(|(_, kind)| *kind)
            .or(in_order)
            .or(options.all_text.then_some(ColumnType::String))
    };
    let mut taken = std::collections::HashSet::new();
    let mut targets = Vec::with_capacity(wanted.len());
    for field in wanted {
        let name = start.names.get(field).cloned().unwrap_or_default();
        if !taken.insert(field) {
            let what = format!("column {name:?} is asked for twice");
            return Err(Error::new(ErrorKind::Option { what }));
        }
        let given = kind_of(field, &name);
        targets.push(Target {
            field,
            kind: given.unwrap_or(ColumnType::String),
            given: given.is_some(),
            blank: given.is_none(),
            name,
        });
    }
    Ok(Plan {
        dialect: start.dialect,
        types: Types {
            point: start.dialect.point,
            ..options.types.clone()
        },
        ragged: options.ragged,
        fields: start.names.clone(),
        targets,
    })
}

/// Widen the types of a plan by the whole records of some text. A first look only guesses, so what is wrong with the text
/// is left to the pass, which knows the line.
///
/// A piece that can be parsed with the types of those before it is summed up by its columns, which is what is fast; any
/// other one cell by cell.
fn look(plan: &mut Plan, text: &[u8], whole: bool, seen: &mut [Summary]) {
    let delimiter = plan.dialect.delimiter;
    let end = if whole {
        text.len()
    } else {
        records::last_record_end(text, delimiter).unwrap_or(0)
    };
    let mut rest = text.get(..end).unwrap_or_default();
    while !rest.is_empty() {
        let piece = rest.get(..PIECE_BYTES).unwrap_or_default();
        let end = records::last_record_end(piece, delimiter).filter(|end| *end > 0);
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        let found = match parse(plan, piece, 1) {
            Ok(parsed) => parsed.seen(plan),
            Err(_) => match summarise(plan, piece, 1) {
                Ok((found, ..)) => found,
                Err(_) => continue,
            },
        };
        for (seen, found) in seen.iter_mut().zip(&found) {
            seen.join(found);
        }
        widen(plan, seen);
    }
}

/// Look at one of the places spread over the file, the last at its end. The text there is trusted only if each record
/// has the right number of fields, so that a start inside a quoted cell misleads nobody.
fn look_at(
    plan: &mut Plan,
    file: &mut File,
    bytes: u64,
    number: u64,
    seen: &mut [Summary],
) -> Result<()> {
    let from = (bytes / LOOKS * number).saturating_sub(LOOK_BYTES);
    let from = if number == LOOKS {
        bytes.saturating_sub(LOOK_BYTES)
    } else {
        from
    };
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut text)?;
    let start = memchr::memchr(b'\n', &text).map_or(text.len(), |at| at + 1);
    let ragged = std::mem::replace(&mut plan.ragged, Ragged::Stop);
    let text = text.get(start..).unwrap_or_default();
    look(plan, text, number == LOOKS, seen);
    plan.ragged = ragged;
    Ok(())
}

/// Give each column the smallest type for what was seen.
pub(super) fn widen(plan: &mut Plan, seen: &[Summary]) {
    for (target, seen) in plan.targets.iter_mut().zip(seen) {
        if !target.given {
            target.kind = seen.smallest(plan.types.empty);
            target.blank = seen.is_blank();
        }
    }
}
