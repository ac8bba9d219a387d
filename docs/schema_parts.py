"""Parts of the JSON Schemas that several commands share, or that are long enough to hide the registry in `schemas`."""

from __future__ import annotations

from json_schema import (
    Schema,
    a_bool,
    a_list,
    a_map,
    a_number,
    a_pair,
    a_text,
    an_int,
    an_object,
    anything,
    one_of,
)

from tapeline import ledger


def _ledger(text: str, fields: list[tuple[str, str]]) -> Schema:
    """A ledger; `a.b` in its description is a member of a member."""
    members: Schema = {}
    for name, what in fields:
        group, dot, member = name.partition(".")
        if dot:
            inner = members.get(group, {})
            if "properties" not in inner:
                inner = members[group] = an_object(inner.get("description", group), {})
            inner["properties"][member] = an_int(what)
            inner["required"].append(member)
        else:
            members[name] = an_int(what)
    return an_object(text, members)


FRAME_LEDGER = _ledger("The ledger of a stream of frames.", ledger.describe())
REGISTER_LEDGER = _ledger("The ledger of a stream of register packets.", ledger.describe_registers())
LEDGER = one_of("The ledger (see ledger.md), by what the stream carries.", FRAME_LEDGER, REGISTER_LEDGER)
LEDGER_OR_NOT = one_of("The ledger; null when the recorder has not written one.", *LEDGER["anyOf"], {"type": "null"})
# One row each in the table; their members are in ledger.md
LEDGERS = (LEDGER, LEDGER_OR_NOT, FRAME_LEDGER, REGISTER_LEDGER)
ROWS = a_pair("First row, and the row after the last.")
COLUMNS = a_list("Columns.", an_object("", {"name": a_text("Its name."), "type": a_text("Its type.")}))

REPORT = {
    "path": a_text("The file."),
    "ok": a_bool("Nothing is wrong."),
    "complete": a_bool("Closed and whole; false: cut or unclosed; null: the format cannot tell.", null=True),
    "rows_readable": an_int("Rows whose checksums hold."),
    "rows_expected": an_int("Rows that the file should have, as far as it says."),
    "rows_unverified": an_int("Whole rows at a cut end that no checksum covers."),
    "problems": a_list(
        "Every fault, in file order.",
        an_object(
            "",
            {
                "text": a_text("What is wrong."),
                "offset": an_int("Byte in the file.", null=True),
                "rows": one_of("Rows that it costs: first, and the one after the last.", ROWS, {"type": "null"}),
            },
        ),
    ),
}

COMPARISON = {
    "equal": a_bool("Nothing of what was checked differs."),
    "rows": a_pair("Rows of the first and of the second table."),
    "rows_compared": an_int("Rows compared."),
    "schema": a_list("Differences of names and types, as text.", {"type": "string"}),
    "differences": an_int("Cells that differ."),
    "columns": a_map("Cells that differ, by column.", an_int("Cells.")),
    "first": a_list(
        "The first differences.",
        an_object(
            "",
            {
                "row": an_int("Row, from 0."),
                "column": a_text("Column."),
                "a": anything("Value of the first table; NaN and infinities as text."),
                "b": anything("Value of the second table."),
            },
        ),
    ),
}

EXPECTED = an_object(
    "What a receiver that got every byte has in its ledger.",
    {
        "bytes_received": an_int("Bytes sent."),
        "frames_received": an_int("Valid frames."),
        "frames_stored": an_int("Valid frames that are no duplicates."),
        "bytes_stored": an_int("Bytes of these."),
        "frames_corrupt": a_map("Frames by what is wrong with them.", an_int("Frames.")),
        "bytes_discarded": an_int("Bytes in no valid frame."),
        "gaps": an_int("Runs of missing sequences."),
        "frames_lost": an_int("Sequences missing between the first and the last."),
        "frames_duplicate": an_int("Frames that were there before."),
        "frames_reordered": an_int("Frames behind a later one."),
        "restarts": an_int("Times the sequence began again."),
    },
)
SENT = {
    "frames_generated": an_int("Frames made."),
    "frames_sent": an_int("Frames sent, duplicates included."),
    "frames_unique": an_int("Different frames sent whole."),
    "frames_dropped": an_int("Frames left out on purpose."),
    "frames_duplicated": an_int("Frames sent twice."),
    "frames_reordered": an_int("Frames sent late."),
    "frames_corrupted": an_int("Frames with a flipped bit."),
    "garbage_bytes": an_int("Bytes between frames that are no frame."),
    "bytes_sent": an_int("Bytes sent."),
    "first_sequence": an_int("First sequence; null for several streams.", null=True),
    "last_sequence": an_int("Last sequence; null for several streams.", null=True),
    "expected": EXPECTED,
}
LINE = {
    "url": a_text("Where to."),
    "datagrams_sent": an_int("UDP datagrams sent."),
    "datagrams_refused": an_int("UDP datagrams that the system refused."),
    "error": a_text("Why sending stopped early.", null=True),
}
DESTINATION = {**LINE, "elapsed_s": a_number("Seconds from the first to the last send."), **SENT}

IMAGE = an_object(
    "",
    {
        "sources": a_list(
            "Sources with known registers, by type and number.",
            an_object(
                "",
                {
                    "type": an_int("Type: 0 unknown, 1 sbmu, 2 rack, 3 rtos."),
                    "src_id": an_int("Number."),
                    "registers": a_list("Known registers.", a_pair("Offset and value.")),
                },
                {"unknown_since": a_list("Registers that a lost packet may have changed.", a_pair("Offset and us."))},
            ),
        )
    },
)
PACKET = {
    "timestamp_us": an_int("Producer time, us since 1970."),
    "type": an_int("Source type."),
    "src_id": an_int("Source number."),
    "cmd": an_int("Command: 0 diff, 1 full, 2 query, 3 reply."),
    "seq": an_int("Sequence of the packet, 0 to 255."),
}
CELLS = a_map("One row: column name to value; NaN is null, infinities are ±1e999.", anything("A value."))
UNFINISHED = a_bool("A source is a BCSV file that was cut, or that its writer has not closed.")
SINK = a_map("Counts and state of a sink; see the guide to registers.", anything("A value."))


ONE = "one line with one object"
LINES = "one object per line"

FRAME_STREAM = an_object(
    "A stream of frames.",
    {
        "segments": an_int("Files."),
        "open_segments": an_int("Files that are being written, or were when the recorder ended."),
        "bytes": an_int("Bytes of the files."),
        "frames": an_int("Frames in them."),
        "assembly": a_text("How frames are grouped into periodics; null without a manifest.", null=True),
        "first_sequence": an_int("Lowest sequence.", null=True),
        "last_sequence": an_int("Highest sequence.", null=True),
        "first_timestamp_ns": an_int("First producer time, ns since 1970.", null=True),
        "last_timestamp_ns": an_int("Last producer time.", null=True),
        "bytes_per_second": a_number("Bytes by the producer's time.", null=True),
        "periodics_complete": an_int("Periodics with all their frames."),
        "periodics_incomplete": an_int("Periodics that miss some."),
        "frames_late": an_int("Frames that came after their periodic was closed."),
        "ledger": LEDGER_OR_NOT,
    },
)
REGISTER_STREAM = an_object(
    "A stream of register packets.",
    {
        "wire": a_text("packet or simple."),
        "segments": an_int("Files."),
        "open_segments": an_int("Files not closed."),
        "bytes": an_int("Bytes of the files."),
        "packets": an_int("Packets in them."),
        "registers": an_int("Registers in them."),
        "sources": a_list("Sources.", an_object("", {"type": a_text("Type."), "src_id": an_int("Number.")})),
        "first_timestamp_us": an_int("First producer time, us since 1970.", null=True),
        "last_timestamp_us": an_int("Last producer time.", null=True),
        "first_time": a_text("The first as ISO 8601.", null=True),
        "last_time": a_text("The last as ISO 8601.", null=True),
        "damage": a_text("What is wrong with the files, if reading stopped at it.", null=True),
        "ledger": LEDGER_OR_NOT,
        "sinks": a_list("Sinks, as the manifest has them.", SINK),
    },
)
INFO_RECORDING = an_object(
    "A recording, a .dat or a .pkt file.",
    {
        "path": a_text("As given."),
        "kind": {"enum": ["recording", "dat", "pkt", "spkt"], "description": "What it is."},
        "complete": a_bool("Stopped in order, and every file is closed.", null=True),
        "started": a_text("ISO 8601.", null=True),
        "stopped": a_text("ISO 8601.", null=True),
        "host": a_text("Machine that recorded.", null=True),
        "streams": a_map("Streams by name.", one_of("A stream.", FRAME_STREAM, REGISTER_STREAM)),
    },
)
INFO_BCSV = an_object(
    "A BCSV file; the optional members and those of columns come with --deep.",
    {
        "path": a_text("As given."),
        "kind": {"enum": ["bcsv"], "description": "What it is."},
        "version": a_text("Format version."),
        "created": a_text("ISO 8601.", null=True),
        "row_codec": a_text("flat, zoh or delta."),
        "file_codec": a_text("stream, stream-lz4, packet, packet-lz4 or packet-lz4-batch."),
        "compression_level": an_int("0: none."),
        "packet_bytes": an_int("Size that packets aim at."),
        "index": a_bool("The footer has an index."),
        "file_bytes": an_int("Size of the file."),
        "header_bytes": an_int("Size of the header."),
        "packets": an_int("Packets."),
        "rows": an_int("Rows."),
        "complete": a_bool("Closed and whole; null: the format cannot tell.", null=True),
        "columns": a_list(
            "Columns.",
            an_object(
                "",
                {"name": a_text("Its name."), "type": a_text("Its type.")},
                {
                    "min": anything("Smallest value; infinities as text."),
                    "max": anything("Largest value."),
                    "mean": anything("Mean of the finite values; null for text and bool."),
                    "changes": an_int("Rows whose value is another one than before."),
                    "nan": an_int("NaN."),
                    "zeros": an_int("Zeros, false or empty strings."),
                    "raw_bytes": an_int("Bytes in memory."),
                },
            ),
        ),
    },
    {
        "raw_bytes": an_int("Bytes of all columns in memory."),
        "ratio": a_number("File size by that.", null=True),
        "packets_detail": a_list(
            "Packets.",
            an_object(
                "",
                {
                    "offset": an_int("Byte in the file."),
                    "first_row": an_int("First row."),
                    "rows": an_int("Rows."),
                    "bytes": an_int("Bytes in the file."),
                    "raw_bytes": an_int("Bytes of its columns in memory."),
                    "ratio": a_number("One by the other.", null=True),
                },
            ),
        ),
        "gaps": a_list("Damaged rows.", ROWS),
    },
)
RECOVERED = an_object(
    "What `repair` did to a recording.",
    {
        "recovered": a_map(
            "Segments that were open, by stream.",
            a_list("", a_map("name, frames, bytes_kept, bytes_cut, tail.", anything("A value."))),
        ),
        "listed": a_list("Files that were not in the manifest.", {"type": "string"}),
        "missing": a_list("Files that are in the manifest only.", {"type": "string"}),
        "indexes": a_list("Indexes that were rebuilt.", {"type": "string"}),
        "ledgers": a_list("Streams whose ledger did not agree with their files, and now does.", {"type": "string"}),
        "problems": a_list("What could not be repaired.", {"type": "string"}),
    },
)
REPAIRED = an_object(
    "What `repair` did to a BCSV file.",
    {
        **REPORT,
        "written": a_text("The new file; null with --dry-run.", null=True),
        "backup": a_text("The old file with --backup.", null=True),
        "gaps": a_list("Rows that are lost.", ROWS),
    },
)
PROFILE = an_object("", {"name": a_text("Name."), "columns": an_int("Columns.")})
