//! The FlatBuffers wire format, just what a .tflite needs: a reader that checks every access and a
//! back-to-front writer that stores equal vectors, strings and leaf tables once. Nothing here knows TFLite.

pub(crate) mod read;
pub(crate) mod write;
