//! The conservation laws of `spec/frame-stream.md 4`, as one assertion.

use tapeline_wire::ledger::Ledger;

/// Asserts laws 1 and 2 for a stream that drops duplicates: every byte and frame is accounted for.
///
/// # Panics
///
/// When a law does not hold; the text has both sides and the whole ledger.
#[track_caller]
pub fn assert_laws(ledger: &Ledger, pending_bytes: u64, valid_bytes: u64, frames_in_flight: u64) {
    let held = ledger.check(pending_bytes, valid_bytes, frames_in_flight);
    assert!(held.is_ok(), "{held:?}\n{ledger:#?}");
}

/// Asserts law 3: what a producer sent, of every sequence between the first and the last seen,
/// is received or lost. `unique` are the frames received without duplicates.
///
/// # Panics
///
/// When it does not hold.
#[track_caller]
pub fn assert_producer_law(sent: u64, unique: u64, ledger: &Ledger) {
    assert_eq!(
        sent,
        unique + ledger.frames_lost,
        "sent, against received once + lost\n{ledger:#?}"
    );
}
