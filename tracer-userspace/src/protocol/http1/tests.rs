//! Tables for heads, framing and detection; whole conversations are in `captures/http1/`.
