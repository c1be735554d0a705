//! A device with a cost model, in virtual time.
//!
//! Runs share the compute: with `k` of them each goes on at `1 / (1 + (k - 1) · contention)` of its pace alone. Swaps
//! go over a bus with one lane each way, one after the other, each at a latency and a bandwidth; a swap-in is followed
//! by what its function needs besides, which does not hold the bus. Memory is finite: what comes in is taken from the
//! start of its swap, what goes out is free at the end of it.
//!
//! Invariant: time moves only by [`SimulatedDevice::advance`], and the same calls give the same completions at the same
//! times. Nothing is free of cost. Does not know why it is asked.

use std::collections::{BTreeMap, VecDeque};

use vilya_engine::{Bytes, FunctionId, Nanos, RunResult};

use super::{Completion, Device, DeviceError, Direction, Swap};
use crate::ids::{RunId, SwapId};

/// What things cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CostModel {
    /// Memory that functions may use.
    pub memory: Bytes,
    /// How much each further run slows all of them, in hundredths: 0 is as if each were alone, 100 is taking turns.
    pub contention_percent: u32,
    /// Each swap, before its first byte.
    pub swap_latency: Nanos,
    /// Each lane of the bus, in bytes a second. 0 is taken as 1.
    pub bandwidth: u64,
}

/// What one function costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// A run of it, alone on the device.
    pub service: Nanos,
    /// After each swap-in, until it can run: zero when its process was kept.
    pub setup: Nanos,
}

/// The device, the functions it was told of, and what is under way on it.
#[derive(Debug)]
pub struct SimulatedDevice {
    costs: CostModel,
    now: Nanos,
    functions: BTreeMap<FunctionId, Simulated>,
    used_bytes: u64,
    /// By the index of their ids, so that runs that end together end in that order.
    runs: BTreeMap<u32, Running>,
    /// Until when each lane is taken.
    lane_free: [Nanos; 2],
    /// By when they end, then by id.
    swaps: BTreeMap<(Nanos, SwapId), Swap>,
    done: VecDeque<Completion>,
}

#[derive(Debug)]
struct Simulated {
    workload: Workload,
    /// What is taken on the device.
    bytes: u64,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Away,
    Moving,
    There,
}

#[derive(Debug)]
struct Running {
    run: RunId,
    function: FunctionId,
    /// What is left of it, in nanoseconds alone on the device.
    left: u64,
}

impl SimulatedDevice {
    /// A device with nothing on it, at the epoch.
    pub fn new(costs: CostModel) -> SimulatedDevice {
        SimulatedDevice {
            costs,
            now: Nanos::ZERO,
            functions: BTreeMap::new(),
            used_bytes: 0,
            runs: BTreeMap::new(),
            lane_free: [Nanos::ZERO; 2],
            swaps: BTreeMap::new(),
            done: VecDeque::new(),
        }
    }

    /// Tells the device what a function costs from now on. Runs already started keep their cost.
    pub fn describe(&mut self, function: FunctionId, workload: Workload) {
        self.functions.entry(function).and_modify(|known| known.workload = workload).or_insert(Simulated {
            workload,
            bytes: 0,
            place: Place::Away,
        });
    }

    /// Taken at the moment, memory on its way either way included.
    pub fn used(&self) -> Bytes {
        Bytes::from_bytes(self.used_bytes)
    }

    /// Runs under way.
    pub fn running(&self) -> u32 {
        self.runs.len() as u32
    }

    /// When the next thing ends if nothing else is started; now, when something has ended that was not yet polled.
    pub fn next_completion(&self) -> Option<Nanos> {
        if self.done.is_empty() { self.next_end() } else { Some(self.now) }
    }

    /// Lets time pass. What ends meanwhile is there to be polled; an earlier time than the present changes nothing.
    pub fn advance(&mut self, now: Nanos) {
        while let Some(next) = self.next_end().filter(|next| *next <= now) {
            self.progress(next);
            self.finish();
        }
        self.progress(now);
    }

    /// When the next of what is under way ends.
    fn next_end(&self) -> Option<Nanos> {
        let swap = self.swaps.keys().next().map(|(ends, _)| *ends);
        let least = self.runs.values().map(|run| run.left).min();
        let run = least.map(|left| self.now.saturating_add(self.stretched(left)));
        swap.into_iter().chain(run).min()
    }

    fn progress(&mut self, to: Nanos) {
        let passed = u128::from(to.saturating_sub(self.now).as_nanos());
        let done = u64::try_from(passed * 100 / u128::from(self.slowdown_percent())).unwrap_or(u64::MAX);
        for run in self.runs.values_mut() {
            run.left = run.left.saturating_sub(done);
        }
        self.now = self.now.max(to);
    }

    /// Moves what has ended by now to where it can be polled.
    fn finish(&mut self) {
        let ended: Vec<u32> = self.runs.iter().filter(|(_, run)| run.left == 0).map(|(index, _)| *index).collect();
        for index in ended {
            let run = self.runs.remove(&index).expect("it was just found").run;
            self.done.push_back(Completion::Run { run, result: RunResult::Returned });
        }
        while let Some(entry) = self.swaps.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let swap = entry.remove();
            let moved = self.functions.get_mut(&swap.function).expect("a swap is of a known function");
            match swap.direction {
                Direction::In => moved.place = Place::There,
                Direction::Out => {
                    moved.place = Place::Away;
                    self.used_bytes -= moved.bytes;
                    moved.bytes = 0;
                }
            }
            self.done.push_back(Completion::Swap { swap: swap.id });
        }
    }

    /// How long a run takes beside the present ones, in hundredths of its time alone.
    fn slowdown_percent(&self) -> u64 {
        let others = self.runs.len().saturating_sub(1) as u64;
        100 + others * u64::from(self.costs.contention_percent)
    }

    /// Rounded up, so that after that time nothing is left.
    fn stretched(&self, left: u64) -> Nanos {
        let time = (u128::from(left) * u128::from(self.slowdown_percent())).div_ceil(100);
        Nanos::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }

    fn transfer(&self, memory: Bytes) -> Nanos {
        let bandwidth = u128::from(self.costs.bandwidth.max(1));
        let time = (u128::from(memory.as_bytes()) * 1_000_000_000).div_ceil(bandwidth);
        self.costs.swap_latency.saturating_add(Nanos::from_nanos(u64::try_from(time).unwrap_or(u64::MAX)))
    }

    fn known(&mut self, function: FunctionId) -> Result<&mut Simulated, DeviceError> {
        self.functions.get_mut(&function).ok_or(DeviceError::UnknownFunction { function })
    }

    /// Takes the room of a swap-in, or holds the function's memory to its place for a swap-out.
    fn begin_swap(&mut self, swap: Swap) -> Result<(), DeviceError> {
        let Swap { function, memory, direction, .. } = swap;
        let free = self.costs.memory.saturating_sub(self.used());
        let is_used = self.runs.values().any(|run| run.function == function);
        let known = self.known(function)?;
        match (direction, known.place) {
            (Direction::In, Place::Away) if memory > free => Err(DeviceError::OutOfMemory { wanted: memory, free }),
            (Direction::In, Place::Away) => {
                known.bytes = memory.as_bytes();
                known.place = Place::Moving;
                self.used_bytes += memory.as_bytes();
                Ok(())
            }
            (Direction::Out, Place::There) if is_used => Err(DeviceError::InUse { function }),
            (Direction::Out, Place::There) => {
                known.place = Place::Moving;
                Ok(())
            }
            _ => Err(DeviceError::Misplaced { function }),
        }
    }
}

impl Device for SimulatedDevice {
    fn memory(&self) -> Bytes {
        self.costs.memory
    }

    fn start_run(&mut self, run: RunId, function: FunctionId) -> Result<(), DeviceError> {
        let known = self.known(function)?;
        if known.place != Place::There {
            return Err(DeviceError::Misplaced { function });
        }
        // A run of nothing still ends after it has started.
        let left = known.workload.service.as_nanos().max(1);
        if self.runs.contains_key(&run.index) {
            return Err(DeviceError::DuplicateRun { run });
        }
        self.runs.insert(run.index, Running { run, function, left });
        Ok(())
    }

    fn start_swap(&mut self, swap: Swap) -> Result<(), DeviceError> {
        self.begin_swap(swap)?;
        let setup = match swap.direction {
            Direction::In => self.known(swap.function)?.workload.setup,
            Direction::Out => Nanos::ZERO,
        };
        let transfer = self.transfer(swap.memory);
        let lane = &mut self.lane_free[swap.direction as usize];
        *lane = self.now.max(*lane).saturating_add(transfer);
        let ends = lane.saturating_add(setup);
        self.swaps.insert((ends, swap.id), swap);
        Ok(())
    }

    fn discard(&mut self, function: FunctionId) {
        self.runs.retain(|_, run| run.function != function);
        self.swaps.retain(|_, swap| swap.function != function);
        if let Some(known) = self.functions.get_mut(&function) {
            self.used_bytes -= known.bytes;
            known.bytes = 0;
            known.place = Place::Away;
        }
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const COSTS: CostModel = CostModel {
        memory: Bytes::from_bytes(16 * GIB),
        contention_percent: 50,
        swap_latency: Nanos::from_millis(1),
        bandwidth: GIB,
    };

    fn function(index: u32) -> FunctionId {
        FunctionId { index, generation: 1 }
    }

    fn swap(index: u32, generation: u32, gib: u64, direction: Direction) -> Swap {
        let id = SwapId { index, generation };
        Swap { id, function: function(index), memory: Bytes::from_bytes(gib * GIB), direction }
    }

    fn run(index: u32) -> RunId {
        RunId { index, generation: 1 }
    }

    fn device(functions: u32) -> SimulatedDevice {
        let mut device = SimulatedDevice::new(COSTS);
        for index in 0..functions {
            device.describe(function(index), Workload { service: Nanos::from_secs(2), setup: Nanos::ZERO });
        }
        device
    }

    /// Every completion and when it could be polled.
    fn rest(device: &mut SimulatedDevice) -> Vec<(Nanos, Completion)> {
        let mut seen = Vec::new();
        while let Some(at) = device.next_completion() {
            device.advance(at);
            seen.extend(std::iter::from_fn(|| device.poll()).map(|completion| (at, completion)));
        }
        seen
    }

    /// A simulation whose swaps cost nothing cannot compare policies for memory.
    #[test]
    fn a_swap_takes_its_latency_and_its_bytes_over_the_bandwidth() {
        let mut device = device(1);
        device.start_swap(swap(0, 1, 4, Direction::In)).unwrap();
        let done = Nanos::from_millis(4_001);
        assert_eq!(rest(&mut device), [(done, Completion::Swap { swap: SwapId { index: 0, generation: 1 } })]);
        device.start_swap(swap(0, 2, 4, Direction::Out)).unwrap();
        let done = Nanos::from_millis(8_002);
        assert_eq!(rest(&mut device), [(done, Completion::Swap { swap: SwapId { index: 0, generation: 2 } })]);
    }

    #[test]
    fn swaps_of_one_direction_queue_and_a_setup_does_not_hold_the_bus() {
        let mut device = device(2);
        device.describe(function(0), Workload { service: Nanos::ZERO, setup: Nanos::from_secs(60) });
        device.start_swap(swap(0, 1, 1, Direction::In)).unwrap();
        device.start_swap(swap(1, 2, 1, Direction::In)).unwrap();
        let times: Vec<Nanos> = rest(&mut device).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [Nanos::from_millis(2_002), Nanos::from_millis(61_001)]);
    }

    #[test]
    fn too_much_memory_is_an_error_and_memory_on_its_way_off_is_still_taken() {
        let mut device = device(3);
        device.start_swap(swap(0, 1, 10, Direction::In)).unwrap();
        let short = DeviceError::OutOfMemory { wanted: Bytes::from_bytes(7 * GIB), free: Bytes::from_bytes(6 * GIB) };
        assert_eq!(device.start_swap(swap(1, 2, 7, Direction::In)), Err(short));
        rest(&mut device);
        device.start_swap(swap(0, 3, 10, Direction::Out)).unwrap();
        assert_eq!(device.start_swap(swap(1, 4, 7, Direction::In)), Err(short));
        rest(&mut device);
        assert_eq!(device.used(), Bytes::ZERO);
        device.start_swap(swap(1, 5, 16, Direction::In)).unwrap();
    }

    #[test]
    fn a_scheduler_that_runs_on_absent_memory_or_moves_used_memory_is_told() {
        let mut device = device(1);
        let misplaced = Err(DeviceError::Misplaced { function: function(0) });
        assert_eq!(device.start_run(run(0), function(0)), misplaced);
        assert_eq!(device.start_swap(swap(0, 1, 1, Direction::Out)), misplaced);
        device.start_swap(swap(0, 2, 1, Direction::In)).unwrap();
        assert_eq!(device.start_run(run(0), function(0)), misplaced, "not before it has arrived");
        rest(&mut device);
        assert_eq!(device.start_swap(swap(0, 3, 1, Direction::In)), misplaced, "not twice");
        device.start_run(run(0), function(0)).unwrap();
        assert_eq!(device.start_run(run(0), function(0)), Err(DeviceError::DuplicateRun { run: run(0) }));
        let in_use = Err(DeviceError::InUse { function: function(0) });
        assert_eq!(device.start_swap(swap(0, 4, 1, Direction::Out)), in_use);
        let unknown = function(9);
        assert_eq!(device.start_run(run(1), unknown), Err(DeviceError::UnknownFunction { function: unknown }));
    }

    #[test]
    fn runs_beside_each_other_slow_each_other() {
        let mut device = device(1);
        device.start_swap(swap(0, 1, 0, Direction::In)).unwrap();
        rest(&mut device);
        let begin = device.now;
        device.start_run(run(0), function(0)).unwrap();
        device.advance(begin.saturating_add(Nanos::from_secs(1)));
        device.start_run(run(1), function(0)).unwrap();
        let times: Vec<Nanos> = rest(&mut device).into_iter().map(|(at, _)| at.saturating_sub(begin)).collect();
        // The second of the first takes 1.5 s beside the other, which then has one second left, alone.
        assert_eq!(times, [Nanos::from_millis(2_500), Nanos::from_millis(3_500)]);
    }

    #[test]
    fn what_is_discarded_frees_its_memory_and_completes_nothing() {
        let mut device = device(2);
        device.start_swap(swap(0, 1, 8, Direction::In)).unwrap();
        rest(&mut device);
        device.start_run(run(0), function(0)).unwrap();
        device.start_swap(swap(1, 2, 8, Direction::In)).unwrap();
        device.discard(function(0));
        device.discard(function(1));
        assert_eq!((device.used(), device.running()), (Bytes::ZERO, 0));
        assert_eq!(rest(&mut device), []);
    }
}
