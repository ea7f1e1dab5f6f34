#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sharedstate::fuzzing::envelope(bytes);
});
