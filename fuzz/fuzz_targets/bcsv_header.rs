//! Any bytes as a header: parsed or refused; what is parsed and written again is the same header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline_bcsv::Header;

fuzz_target!(|data: &[u8]| {
    for any_flags in [false, true] {
        let Ok((header, bytes)) = Header::parse(data, any_flags) else {
            continue;
        };
        assert!(bytes <= data.len());
        let (again, length) =
            Header::parse(&header.encode(), any_flags).expect("an encoded header");
        assert_eq!(length, header.encode().len());
        assert_eq!(again.encode(), header.encode());
    }
});
