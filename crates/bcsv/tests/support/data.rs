//! Random schemas and columns, small and awkward: every type, NaNs, repeats, ramps, long strings.

use tapeline_bcsv::{
    BatchView, Bitmap, Column, ColumnSpec, ColumnType, ColumnView, Schema, StringColumn,
};

/// A small generator of numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Up to `most` columns of random types.
pub fn schema(random: &mut Random, most: u64) -> Schema {
    let columns = random.below(most + 1);
    let specs = (0..columns).map(|i| {
        let kind = ColumnType::ALL[random.below(12) as usize];
        ColumnSpec::new(format!("c{i}_{kind}"), kind)
    });
    Schema::new(specs.collect()).unwrap()
}

/// A column: holds, ramps, noise and extremes, changing every few rows, or one in `calm` rows changes at all.
pub fn column(random: &mut Random, kind: ColumnType, rows: usize, calm: u64) -> Column {
    let mut character = 0;
    let mut value = 0_u64;
    let mut step = 0_u64;
    let mut bits = Vec::with_capacity(rows);
    for row in 0..rows {
        if row > 0 && random.below(calm) != 0 {
            bits.push(value);
            continue;
        }
        if random.below(9) == 0 {
            character = random.below(5);
            step = random.below(4);
        }
        value = match character {
            0 => value,
            1 => value.wrapping_add(step),
            2 => random.next(),
            3 => [
                0,
                u64::MAX,
                1 << 63,
                0x7FF0_0000_0000_0001,
                0x8000_0000,
                0x7F80_0001,
                0x7FC0_0000,
            ][random.below(7) as usize],
            _ => random.below(3),
        };
        bits.push(value);
    }
    let float = |character: u64, v: u64| {
        if character.is_multiple_of(2) {
            v as f64 * 0.25
        } else {
            f64::from_bits(v)
        }
    };
    let ramps = random.below(2);
    match kind {
        ColumnType::Bool => {
            let mut bitmap = Bitmap::default();
            bits.iter().for_each(|v| bitmap.push(v & 1 == 1));
            Column::Bool(bitmap)
        }
        ColumnType::UInt8 => Column::UInt8(bits.iter().map(|v| *v as u8).collect()),
        ColumnType::UInt16 => Column::UInt16(bits.iter().map(|v| *v as u16).collect()),
        ColumnType::UInt32 => Column::UInt32(bits.iter().map(|v| *v as u32).collect()),
        ColumnType::UInt64 => Column::UInt64(bits),
        ColumnType::Int8 => Column::Int8(bits.iter().map(|v| *v as i8).collect()),
        ColumnType::Int16 => Column::Int16(bits.iter().map(|v| *v as i16).collect()),
        ColumnType::Int32 => Column::Int32(bits.iter().map(|v| *v as i32).collect()),
        ColumnType::Int64 => Column::Int64(bits.iter().map(|v| *v as i64).collect()),
        ColumnType::Float => Column::Float(
            bits.iter()
                .map(|v| {
                    if ramps == 0 {
                        float(0, *v & 0xFFFF) as f32
                    } else {
                        f32::from_bits(*v as u32)
                    }
                })
                .collect(),
        ),
        ColumnType::Double => Column::Double(bits.iter().map(|v| float(ramps, *v)).collect()),
        ColumnType::String => {
            let mut text = StringColumn::default();
            for v in bits {
                let length = if v % 97 == 5 { 3000 } else { v % 12 };
                text.bytes.extend((0..length).map(|i| (v >> (i % 8)) as u8));
                text.offsets.push(i32::try_from(text.bytes.len()).unwrap());
            }
            Column::String(text)
        }
    }
}

/// Columns for a schema; of some tables hardly anything changes.
pub fn columns(random: &mut Random, schema: &Schema, rows: usize) -> Vec<Column> {
    let calm = [1, 1, 200][random.below(3) as usize];
    schema
        .columns()
        .iter()
        .map(|spec| column(random, spec.kind, rows, calm))
        .collect()
}

/// Rows `start..stop` as a view.
pub fn view(columns: &[Column], start: usize, stop: usize) -> BatchView<'_> {
    let views = columns.iter().map(|column| match column {
        Column::Bool(bits) => ColumnView::Bool {
            bits: &bits.bytes,
            offset: start,
        },
        Column::UInt8(v) => ColumnView::UInt8(&v[start..stop]),
        Column::UInt16(v) => ColumnView::UInt16(&v[start..stop]),
        Column::UInt32(v) => ColumnView::UInt32(&v[start..stop]),
        Column::UInt64(v) => ColumnView::UInt64(&v[start..stop]),
        Column::Int8(v) => ColumnView::Int8(&v[start..stop]),
        Column::Int16(v) => ColumnView::Int16(&v[start..stop]),
        Column::Int32(v) => ColumnView::Int32(&v[start..stop]),
        Column::Int64(v) => ColumnView::Int64(&v[start..stop]),
        Column::Float(v) => ColumnView::Float(&v[start..stop]),
        Column::Double(v) => ColumnView::Double(&v[start..stop]),
        Column::String(text) => ColumnView::String {
            offsets: &text.offsets[start..=stop],
            bytes: &text.bytes,
        },
    });
    BatchView {
        rows: stop - start,
        columns: views.collect(),
    }
}

/// Rows `start..stop` of a column, bit for bit, for comparing.
pub fn bits(column: &Column, start: usize, stop: usize) -> Vec<Vec<u8>> {
    use tapeline_bcsv::Value;
    let bytes = |row| match column.value(row).unwrap() {
        Value::Bool(v) => vec![u8::from(v)],
        Value::UInt8(v) => v.to_le_bytes().to_vec(),
        Value::UInt16(v) => v.to_le_bytes().to_vec(),
        Value::UInt32(v) => v.to_le_bytes().to_vec(),
        Value::UInt64(v) => v.to_le_bytes().to_vec(),
        Value::Int8(v) => v.to_le_bytes().to_vec(),
        Value::Int16(v) => v.to_le_bytes().to_vec(),
        Value::Int32(v) => v.to_le_bytes().to_vec(),
        Value::Int64(v) => v.to_le_bytes().to_vec(),
        Value::Float(v) => v.to_le_bytes().to_vec(),
        Value::Double(v) => v.to_le_bytes().to_vec(),
        Value::String(v) => v.to_vec(),
    };
    (start..stop).map(bytes).collect()
}
