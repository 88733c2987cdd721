//! What comes out behind the kernel's links: the frames that leave the wire's interfaces, matched to
//! those that were handed in. Relay thread.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::port::Port;
use crate::packet::Direction;
use crate::wire::{Fate, Origin};

/// The kernel's links as the relay sees them: from both sides.
pub(super) struct Behind {
    /// Behind the link to the client, then behind that to the server.
    taps: [Port; 2],
    /// What was handed to each link, by direction.
    entered: [Vec<Entered>; 2],
    /// The indices of those that look like this, by direction.
    alike: [HashMap<Vec<u8>, Vec<usize>>; 2],
}

/// A datagram handed to a link.
struct Entered {
    flow: u32,
    ordinal: u64,
    /// How often it has come out.
    seen: u32,
}

impl Behind {
    pub(super) fn new(taps: [Port; 2]) -> Self {
        Self {
            taps,
            entered: [Vec::new(), Vec::new()],
            alike: [HashMap::new(), HashMap::new()],
        }
    }

    /// Notes what is about to be handed to a link.
    pub(super) fn enters(&mut self, direction: Direction, origin: &Origin, frame: &[u8]) {
        if let Origin::Sent { flow, ordinal, .. } = origin {
            let entered = &mut self.entered[direction as usize];
            let alike = self.alike[direction as usize].entry(frame.to_vec());
            alike.or_default().push(entered.len());
            entered.push(Entered {
                flow: *flow,
                ordinal: *ordinal,
                seen: 0,
            });
        }
    }

    /// The next datagram that has come out, if any.
    pub(super) fn next(
        &mut self,
        buffer: &mut [u8],
    ) -> io::Result<Option<(Direction, Vec<u8>, Origin)>> {
        for direction in Direction::BOTH {
            while let Some(length) = self.tap(direction).receive(buffer)? {
                let frame = &buffer[..length];
                let entered = &mut self.entered[direction as usize];
                let alike = self.alike[direction as usize].get(frame);
                // Of several alike the oldest comes out first; a copy comes only after them all.
                let first = alike.and_then(|alike| {
                    alike
                        .iter()
                        .copied()
                        .min_by_key(|index| entered[*index].seen)
                });
                if let Some(index) = first {
                    let one = &mut entered[index];
                    let origin = Origin::Sent {
                        flow: one.flow,
                        ordinal: one.ordinal,
                        copy: one.seen,
                    };
                    one.seen += 1;
                    return Ok(Some((direction, frame.to_vec(), origin)));
                }
            }
        }
        Ok(None)
    }

    /// What became of each datagram, by flow, direction and ordinal.
    pub(super) fn fates(&self) -> BTreeMap<(u32, Direction, u64), Fate> {
        let all = Direction::BOTH
            .into_iter()
            .flat_map(|direction| {
                let entered = &self.entered[direction as usize];
                entered.iter().map(move |one| (direction, one))
            })
            .map(|(direction, one)| {
                let fate = match one.seen {
                    0 => Fate::Dropped,
                    1 => Fate::Delivered,
                    more => Fate::Duplicated { copies: more - 1 },
                };
                ((one.flow, direction, one.ordinal), fate)
            });
        all.collect()
    }

    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.taps[0].as_fd(), self.taps[1].as_fd()]
    }

    fn tap(&self, direction: Direction) -> &Port {
        match direction {
            Direction::ToServer => &self.taps[1],
            Direction::ToClient => &self.taps[0],
        }
    }
}
