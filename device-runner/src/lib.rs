//! Measures models on one device.
