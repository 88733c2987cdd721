//! What a message holds, so that its echo can be told from any other answer. Pure.
//!
//! ```text
//!  0        4        8                 16                 size
//!  connection  number   check             fill
//! ```
//!
//! Check and fill follow from the two numbers, so a message of the past can be made again and
//! compared byte for byte, and need not be kept.

/// The numbers and the check.
pub(crate) const MIN_SIZE: u16 = 16;

/// Writes message `number` of `connection` over all of `buffer`; `seed` is the run's.
pub(crate) fn write(buffer: &mut [u8], seed: u64, connection: u32, number: u32) {
    let mut state = mix(seed ^ (u64::from(connection) << 32 | u64::from(number)));
    buffer[..4].copy_from_slice(&connection.to_be_bytes());
    buffer[4..8].copy_from_slice(&number.to_be_bytes());
    for chunk in buffer[8..].chunks_mut(8) {
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
        // Knuth's MMIX generator: one multiplication for eight bytes.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }
}

/// The number of the message of `connection` that `answer` is a perfect copy of. `scratch` is as
/// long as every message and is written over.
pub(crate) fn read(answer: &[u8], seed: u64, connection: u32, scratch: &mut [u8]) -> Option<u32> {
    let number = answer.get(4..8)?.try_into().ok()?;
    let number = u32::from_be_bytes(number);
    write(scratch, seed, connection, number);
    (answer == scratch).then_some(number)
}

/// The finalizer of `SplitMix64`: neighbours become strangers.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_recognised_at_every_size() {
        for size in [usize::from(MIN_SIZE), 17, 23, 24, 100, 1435] {
            let mut message = vec![0; size];
            write(&mut message, 1, 7, 9);
            assert_eq!(read(&message, 1, 7, &mut vec![0; size]), Some(9), "{size}");
        }
    }

    #[test]
    fn any_changed_bit_another_length_or_connection_is_no_copy() {
        let mut message = [0; 40];
        write(&mut message, 1, 7, 9);
        let mut scratch = [0; 40];
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&message, 1, 7, &mut scratch), None, "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(read(&message[..39], 1, 7, &mut scratch), None);
        assert_eq!(
            read(&[&message[..], &[0]].concat(), 1, 7, &mut scratch),
            None
        );
        assert_eq!(read(&[], 1, 7, &mut scratch), None);
        assert_eq!(read(&message, 1, 8, &mut scratch), None);
        assert_eq!(read(&message, 2, 7, &mut scratch), None);
    }
}
