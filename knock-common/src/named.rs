//! Enums of what is counted and reported: each variant is one row, with its name in commands, documents and metrics.

/// Defines such an enum. Number, order and names follow from its rows. `$subject` and a row's text make up the
/// sentence of its documentation; the text is also the row's description in docs/reference.md, which a test compares.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident: $subject:literal {
            $($variant:ident = $value:literal, $name:expr, $text:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum {
            $(
                #[doc = concat!($subject, " ", $text, ".")]
                $variant = $value,
            )+
        }

        impl $enum {
            /// Number of variants.
            pub const COUNT: usize = [$($value),+].len();

            /// All variants, in the order of their rows.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];

            /// Returns the variant with this number, if there is one.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| *variant as u8 == number)
            }

            /// Returns its name in commands, documents and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns its description in docs/reference.md, without the subject.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
