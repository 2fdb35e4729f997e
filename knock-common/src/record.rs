//! How records lie in memory that cross between the kernel program and user space.
//!
//! Such a record is `repr(C)`, of integers and byte arrays, without padding, `bool` or enum. Each stands beside the
//! code that uses it, with its size and offsets asserted there.

/// Asserts the size of each record in bytes and the offset of each of its fields, and lets aya's maps hold it.
macro_rules! records {
    ($($record:ty: $size:literal { $($field:tt: $offset:literal),+ $(,)? }),+ $(,)?) => {
        $(
            const _: () = {
                assert!(size_of::<$record>() == $size);
                $(assert!(core::mem::offset_of!($record, $field) == $offset);)+
            };

            // SAFETY: the type is `bytemuck::Pod`, which asks for more than `aya::Pod` does.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $record {}
        )+
    };
}
