//! Bytes from hosts to Arrow record batches. Everything here is hostile input: bounded, never panics, nothing dropped
//! in silence.
