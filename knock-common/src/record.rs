//! How records lie in memory that cross between the kernel program and user space.
//!
//! Such a record is `repr(C)`, of integers and byte arrays, without padding, `bool` or enum. Each stands beside the
//! code that uses it, with its size and offsets asserted there.

/// Asserts the size of each record in bytes and the offset of each of its fields, makes its [`Record`], and lets aya's
/// maps hold it.
macro_rules! records {
    ($($record:ty: $size:literal { $($field:tt: $offset:literal),+ $(,)? }),+ $(,)?) => {
        $(
            const _: () = {
                assert!(size_of::<$record>() == $size);
                $(assert!(core::mem::offset_of!($record, $field) == $offset);)+
            };

            impl $crate::record::Record for $record {
                const SHAPE: u64 = $crate::record::fingerprint(&[
                    size_of::<$record>() as u64,
                    $(core::mem::offset_of!($record, $field) as u64),+
                ]);
            }

            // SAFETY: the type is `bytemuck::Pod`, which asks for more than `aya::Pod` does.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $record {}
        )+
    };
}

/// How a record lies in memory, as one number.
pub(crate) trait Record {
    /// Of its size and the offsets of its fields.
    const SHAPE: u64;
}

/// Returns the hash of a list of numbers: FNV-1a, by whole words.
pub(crate) const fn fingerprint(words: &[u64]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < words.len() {
        hash = (hash ^ words[index]).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}
