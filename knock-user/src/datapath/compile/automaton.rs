//! Compiles all sequences of all gates to one automaton (Aho and Corasick, CACM 18(6), 1975).
//!
//! A state is the longest suffix of a source's probes that is a prefix of some sequence. Its transitions are
//! stored only where they differ from the root's, so the table stays about as large as the sequences themselves:
//! where nothing is stored, a knock leads to the state after that knock alone if a sequence begins with it, else
//! to the root. States after one knock are numbered `symbol + 1`. A state with a single transition stores it in
//! itself, which saves the kernel program a look-up.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a checked configuration has at most 65,535 knock ports and a million knocks"
)]

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytemuck::Zeroable as _;
use knock_common::{
    knock::automaton::{Sequence, State, Transition},
    time::TICK_SHIFT,
};

use super::applied::Applied;
use crate::values::Port;

/// The automaton as the kernel program reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Automaton {
    /// All knock ports; a port's index is its symbol. Those that begin a sequence come first.
    pub symbols: Vec<Port>,
    /// Number of symbols that begin a sequence.
    pub starts: usize,
    pub states: Vec<State>,
    /// Transitions of states that have several.
    pub transitions: HashMap<Transition, u32>,
    /// By the user's id; of length 0 where no user has it.
    pub sequences: Vec<Sequence>,
    /// By state, the symbols on the way to it; made when it is first asked for.
    paths: OnceCell<Vec<Vec<u16>>>,
}

/// The sequences need more than [`MAX_TRANSITIONS`] transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooEntangled;

impl std::fmt::Display for TooEntangled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the sequences repeat each other's beginnings so often that they need more than \
             {MAX_TRANSITIONS} transitions; let fewer of them contain a port that many begin with"
        )
    }
}

impl std::error::Error for TooEntangled {}

/// Bounds the transition table at 64 MiB of kernel memory.
pub const MAX_TRANSITIONS: usize = 1 << 20;

impl Automaton {
    /// Compiles the sequences of `applied`, whose configuration has been checked: no sequence ends with another,
    /// there are at most 65,535 knock ports.
    pub fn compile(applied: &Applied) -> Result<Self, TooEntangled> {
        let firsts: BTreeSet<Port> = applied
            .knocks()
            .filter_map(|(_, _, knock)| knock.sequence.first())
            .copied()
            .collect();
        let others: BTreeSet<Port> = applied
            .knocks()
            .flat_map(|(_, _, knock)| knock.sequence.iter().copied())
            .filter(|port| !firsts.contains(port))
            .collect();
        let starts = firsts.len();
        let symbols: Vec<Port> = firsts.into_iter().chain(others).collect();
        let symbol_of: HashMap<Port, u16> = symbols.iter().copied().zip(0_u16..).collect();

        let mut trie = Trie::with_starts(starts);
        let mut sequences = vec![Sequence::zeroed(); applied.ids.users_end()];
        for (gate, user, knock) in applied.knocks() {
            let within = ticks(knock.within);
            let path = knock.sequence.iter().map(|port| symbol_of[port]);
            sequences[user as usize] = Sequence {
                within,
                length: knock.sequence.len() as u16,
                gate,
            };
            trie.add(path, user + 1, within, gate);
        }
        let (states, transitions) = trie.link()?;
        Ok(Self {
            symbols,
            starts,
            states,
            transitions,
            sequences,
            paths: OnceCell::new(),
        })
    }
}

impl Automaton {
    /// Returns the states that knocking `sequence` from the beginning goes through, one for each knock.
    pub fn path<'a>(&'a self, sequence: &'a [Port]) -> impl Iterator<Item = u32> + 'a {
        let mut state = 0;
        sequence.iter().map(move |port| {
            state = self.step(state, *port);
            state
        })
    }

    /// Returns the state that knocks on `ports`, in this order, lead to from the beginning.
    pub fn reach(&self, ports: &[Port]) -> u32 {
        ports.iter().fold(0, |state, port| self.step(state, *port))
    }

    /// Returns the knocks that `state` stands for, oldest first; `None` where there is no such state.
    pub fn ports(&self, state: u32) -> Option<Vec<Port>> {
        let paths = self.paths.get_or_init(|| self.all_paths());
        let symbols = paths.get(state as usize)?.iter();
        symbols
            .map(|symbol| self.symbols.get(usize::from(*symbol)).copied())
            .collect()
    }

    /// Returns the symbols on the way from the root to each state.
    fn all_paths(&self) -> Vec<Vec<u16>> {
        let mut paths = vec![Vec::new(); self.states.len()];
        let deeper = |from: u32, to: u32| {
            self.states[to as usize].depth == self.states[from as usize].depth + 1
        };
        let mut children: Vec<Vec<(u16, u32)>> = vec![Vec::new(); self.states.len()];
        for (state, number) in self.states.iter().zip(0_u32..) {
            if state.next != 0 && deeper(number, state.next) {
                children[number as usize].push((state.symbol, state.next));
            }
        }
        for (Transition { state, symbol }, next) in &self.transitions {
            if deeper(*state, *next) {
                children[*state as usize].push((*symbol as u16, *next));
            }
        }
        for symbol in 0..self.starts {
            children[0].push((symbol as u16, symbol as u32 + 1));
        }
        let mut queue = vec![0_u32];
        while let Some(state) = queue.pop() {
            for (symbol, next) in children[state as usize].clone() {
                let mut path = paths[state as usize].clone();
                path.push(symbol);
                paths[next as usize] = path;
                queue.push(next);
            }
        }
        paths
    }

    /// Returns whether states and symbols have the same numbers in `other`, so that progress under one means the same under
    /// the other.
    pub fn numbers_like(&self, other: &Self) -> bool {
        let shape = |automaton: &Self| {
            let states = automaton.states.iter();
            states
                .map(|state| (state.depth, state.next, state.symbol, state.several))
                .collect::<Vec<_>>()
        };
        self.symbols == other.symbols
            && self.starts == other.starts
            && self.transitions == other.transitions
            && shape(self) == shape(other)
    }

    /// Returns the symbol of a port.
    pub fn symbol(&self, port: Port) -> Option<u16> {
        let (starts, others) = self.symbols.split_at(self.starts);
        // Each part is sorted; see `compile`.
        let symbol = match starts.binary_search(&port) {
            Ok(symbol) => symbol,
            Err(_) => self.starts + others.binary_search(&port).ok()?,
        };
        Some(symbol as u16)
    }

    /// Returns the state that a probe to `port` leads to from `state`.
    fn step(&self, state: u32, port: Port) -> u32 {
        let Some(symbol) = self.symbol(port).map(usize::from) else {
            return 0;
        };
        let start = if symbol < self.starts {
            symbol as u32 + 1
        } else {
            0
        };
        let from = self.states[state as usize];
        let onward = if from.several != 0 {
            let symbol = symbol as u32;
            self.transitions.get(&Transition { state, symbol }).copied()
        } else {
            (from.next != 0 && usize::from(from.symbol) == symbol).then_some(from.next)
        };
        onward.unwrap_or(start)
    }
}

/// Returns a duration in units of 2^[`TICK_SHIFT`] ns, rounded up.
fn ticks(duration: Duration) -> u32 {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    u32::try_from(nanoseconds.div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX)
}

/// The sequences as a tree of knocks, before it is linked.
struct Trie {
    states: Vec<State>,
    /// By state; ordered, so that the same configuration always compiles to the same tables.
    children: Vec<BTreeMap<u16, u32>>,
}

impl Trie {
    fn with_starts(starts: usize) -> Self {
        let mut trie = Self {
            states: Vec::new(),
            children: Vec::new(),
        };
        trie.new_state(0);
        for symbol in (0..starts).map(|symbol| symbol as u16) {
            let state = trie.new_state(1);
            trie.children[0].insert(symbol, state);
        }
        trie
    }

    fn new_state(&mut self, depth: u8) -> u32 {
        self.states.push(State {
            completes: 0,
            within: 0,
            gate: 0,
            depth,
            of: 0,
            next: 0,
            symbol: 0,
            several: 0,
            unfinished: depth,
        });
        self.children.push(BTreeMap::new());
        (self.states.len() - 1) as u32
    }

    fn add(
        &mut self,
        path: impl ExactSizeIterator<Item = u16>,
        completes: u32,
        within: u32,
        gate: u16,
    ) {
        let of = path.len() as u8;
        self.states[0].within = self.states[0].within.max(within);
        let mut state = 0;
        for (symbol, depth) in path.zip(1_u8..) {
            let known = self.children[state as usize].get(&symbol).copied();
            state = known.unwrap_or_else(|| {
                let child = self.new_state(depth);
                self.children[state as usize].insert(symbol, child);
                child
            });
            let shared = &mut self.states[state as usize];
            if shared.of == 0 {
                shared.gate = gate;
                shared.of = of;
            }
            shared.of = shared.of.min(of);
            shared.within = shared.within.max(within);
        }
        self.states[state as usize].completes = completes;
    }

    /// Links each state, breadth first, to the longest proper suffix that is a state too, and takes over the transitions
    /// and the completed sequence of that one where the state has none of its own.
    fn link(mut self) -> Result<(Vec<State>, HashMap<Transition, u32>), TooEntangled> {
        let mut failure = vec![0_u32; self.states.len()];
        // Transitions of each state that differ from the root's.
        let mut moves: Vec<BTreeMap<u16, u32>> = vec![BTreeMap::new(); self.states.len()];
        let mut count = 0;
        let mut queue: Vec<u32> = self.children[0].values().copied().collect();
        let mut next = 0;
        while let Some(&state) = queue.get(next) {
            next += 1;
            let at = state as usize;
            let inherited = failure[at] as usize;
            for (&symbol, &child) in &self.children[at] {
                queue.push(child);
                failure[child as usize] = moves[inherited]
                    .get(&symbol)
                    .or_else(|| self.children[0].get(&symbol))
                    .copied()
                    .unwrap_or(0);
            }
            let mut own = moves[inherited].clone();
            own.extend(&self.children[at]);
            count += own.len();
            if count > MAX_TRANSITIONS {
                return Err(TooEntangled);
            }
            moves[at] = own;
            if self.states[at].completes == 0 {
                self.states[at].completes = self.states[inherited].completes;
            }
            if self.children[at].is_empty() {
                self.states[at].unfinished = self.states[inherited].unfinished;
            }
        }
        let mut transitions = HashMap::new();
        for ((state, moves), number) in self.states.iter_mut().zip(moves).zip(0_u32..) {
            if moves.len() == 1 {
                for (symbol, next) in moves {
                    (state.symbol, state.next) = (symbol, next);
                }
                continue;
            }
            for (symbol, next) in moves {
                state.several = 1;
                let transition = Transition {
                    state: number,
                    symbol: symbol.into(),
                };
                transitions.insert(transition, next);
            }
        }
        Ok((self.states, transitions))
    }
}
