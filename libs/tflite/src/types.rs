//! The schema's small enumerations.

use std::fmt;

use crate::ReadError;

/// Declares an enumeration with its numbers and schema names.
macro_rules! schema_enum {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$vdoc:meta])* $variant:ident = $value:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $value,)*
        }

        impl $name {
            pub(crate) fn from_number(number: u8) -> Result<Self, ReadError> {
                match number {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(ReadError::UnknownNumber { what: $what, number }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

schema_enum! {
    /// The element type of a tensor. It prints as NumPy would name it.
    #[allow(missing_docs)]
    TensorType ("tensor type") {
        Float32 = 0 "float32",
        Float16 = 1 "float16",
        Int32 = 2 "int32",
        Uint8 = 3 "uint8",
        Int64 = 4 "int64",
        String = 5 "string",
        Bool = 6 "bool",
        Int16 = 7 "int16",
        Complex64 = 8 "complex64",
        Int8 = 9 "int8",
        Float64 = 10 "float64",
        Complex128 = 11 "complex128",
        Uint64 = 12 "uint64",
        Resource = 13 "resource",
        Variant = 14 "variant",
        Uint32 = 15 "uint32",
        Uint16 = 16 "uint16",
        Int4 = 17 "int4",
        Bfloat16 = 18 "bfloat16",
        Int2 = 19 "int2",
        Uint4 = 20 "uint4",
        Float8E4m3fn = 21 "float8_e4m3fn",
        Float8E5m2 = 22 "float8_e5m2",
    }
}

schema_enum! {
    /// How a window operator treats the border.
    Padding ("padding") {
        /// Output size is ceil(input / stride); the odd element of padding goes to the end.
        Same = 0 "SAME",
        /// No padding.
        Valid = 1 "VALID",
    }
}

schema_enum! {
    /// An activation fused into the operator that precedes it.
    #[allow(missing_docs)]
    Activation ("activation") {
        None = 0 "NONE",
        Relu = 1 "RELU",
        ReluN1To1 = 2 "RELU_N1_TO_1",
        Relu6 = 3 "RELU6",
        Tanh = 4 "TANH",
        SignBit = 5 "SIGN_BIT",
    }
}

schema_enum! {
    /// What MIRROR_PAD repeats.
    MirrorMode ("mirror pad mode") {
        /// Without the border element.
        Reflect = 0 "REFLECT",
        /// With the border element.
        Symmetric = 1 "SYMMETRIC",
    }
}

impl TensorType {
    /// Bits of one element, or none for types without a fixed size.
    pub fn bits(self) -> Option<usize> {
        use TensorType as T;
        Some(match self {
            T::Int2 => 2,
            T::Int4 | T::Uint4 => 4,
            T::Uint8 | T::Bool | T::Int8 | T::Float8E4m3fn | T::Float8E5m2 => 8,
            T::Float16 | T::Bfloat16 | T::Int16 | T::Uint16 => 16,
            T::Float32 | T::Int32 | T::Uint32 => 32,
            T::Int64 | T::Uint64 | T::Float64 | T::Complex64 => 64,
            T::Complex128 => 128,
            T::String | T::Resource | T::Variant => return None,
        })
    }
}
