//! Runs samples through sessions, batch by batch: through one, in order, or through several at once, what comes of it
//! still taken in order, so that no result depends on how many there were.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::CalibrationError;
use crate::dataset::Dataset;
use crate::runtime::{RuntimeError, Session};

/// Hears (done, total) and says whether to go on.
pub(crate) type Step<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// One run's input.
pub(crate) struct Batch<'a> {
    /// Row-major; filled up with the last sample where the model's batch is fixed.
    pub values: &'a [f32],
    /// Shape of `values`.
    pub shape: &'a [usize],
    /// How many rows are samples.
    pub count: usize,
    /// Number of the first sample.
    pub first: usize,
}

/// What is fed.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    /// The samples.
    pub dataset: &'a Dataset,
    /// How many at most, from the first on.
    pub limit: usize,
    /// How many at once where the model's batch is free.
    pub free: usize,
}

/// Feeds at most `limit` samples, `free` at a time where the batch is free. Gives how many there were.
///
/// # Errors
/// What `run` gives, [`CalibrationError::Dataset`], or [`CalibrationError::Cancelled`].
pub(crate) fn feed(
    session: &mut Session,
    dataset: &Dataset,
    limit: usize,
    free: usize,
    step: Step<'_>,
    mut run: impl FnMut(&mut Session, Batch<'_>) -> Result<(), CalibrationError>,
) -> Result<usize, CalibrationError> {
    let shape = session.input_shape().to_vec();
    Feed { dataset, limit, free }.batches(&shape, step, |owned| run(session, owned.batch()))
}

/// Feeds `workers` sessions, a thread for each. `run` makes something of a batch in one of those threads; `take` gets
/// that in this one, in the samples' order. Gives how many samples there were.
///
/// Sessions of one thread each are worth more than one session of all threads: those would wait for one another at
/// every operator, and for whatever else the machine does.
///
/// # Errors
/// What `open`, `run` and `take` give, the first by the samples' order; [`CalibrationError::Dataset`], or
/// [`CalibrationError::Cancelled`].
pub(crate) fn feed_many<T: Send>(
    feed: Feed<'_>,
    workers: usize,
    open: impl Fn() -> Result<Session, RuntimeError> + Sync,
    step: Step<'_>,
    run: impl Fn(&mut Session, Batch<'_>) -> Result<T, CalibrationError> + Sync,
    take: impl FnMut(T),
) -> Result<usize, CalibrationError> {
    let (give, tasks) = sync_channel::<(usize, Owned)>(workers);
    let tasks = Mutex::new(tasks);
    let (tell, told) = channel();
    let work = |tell: Tell<T>| {
        let mut session = match open() {
            Ok(session) => session,
            Err(error) => return drop(tell.0.send(Told::Failed(error.into()))),
        };
        let _ = tell.0.send(Told::Ready(session.input_shape().to_vec()));
        loop {
            let next = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, batch)) = next else { return };
            if tell.0.send(Told::Made(number, run(&mut session, batch.batch()))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        for _ in 0..workers {
            let tell = Tell(tell.clone());
            scope.spawn(move || work(tell));
        }
        drop(tell);
        // Both channels end with this closure, however it ends, and the workers with them.
        let give = give;
        let mut order = Order { told, waiting: BTreeMap::new(), taken: 0, take };
        let shape = order.ready()?;
        let mut sent = 0;
        let samples = feed.batches(&shape, step, |batch| {
            // One batch lies ready for whoever is free next; more would only take memory.
            order.take_to((sent + 1usize).saturating_sub(workers + 1))?;
            sent += 1;
            give.send((sent - 1, batch)).map_err(|_| gone())
        })?;
        order.take_to(sent)?;
        Ok(samples)
    })
}

/// A batch on its way to another thread.
struct Owned {
    values: Vec<f32>,
    shape: Vec<usize>,
    count: usize,
    first: usize,
}

impl Owned {
    fn batch(&self) -> Batch<'_> {
        Batch { values: &self.values, shape: &self.shape, count: self.count, first: self.first }
    }
}

impl Feed<'_> {
    /// Cuts the samples into batches for a session whose input has this shape, -1 where it is free.
    fn batches(
        self,
        input: &[i64],
        step: Step<'_>,
        mut next: impl FnMut(Owned) -> Result<(), CalibrationError>,
    ) -> Result<usize, CalibrationError> {
        let Self { dataset, limit, free } = self;
        dataset.check_shape(input)?;
        let fixed = input.first().copied().unwrap_or(-1);
        let batch = usize::try_from(fixed).map_or(free, |fixed| fixed.max(1));
        let total = limit.clamp(1, dataset.len());
        let mut seen = 0;
        dataset.for_each_batch(total, batch, |first, mut values, count| -> Result<bool, CalibrationError> {
            if !step(first as u64, total as u64) {
                return Err(CalibrationError::Cancelled);
            }
            let size = values.len() / count;
            let rows = if fixed > 0 { batch } else { count };
            for _ in count..rows {
                values.extend_from_within((count - 1) * size..count * size);
            }
            let shape = [&[rows], dataset.sample_shape()].concat();
            next(Owned { values, shape, count, first })?;
            seen += count;
            Ok(true)
        })?;
        step(total as u64, total as u64);
        Ok(seen)
    }
}

/// What a worker says.
enum Told<T> {
    /// It loaded a model whose input has this shape.
    Ready(Vec<i64>),
    /// It did not.
    Failed(CalibrationError),
    /// What came of a batch.
    Made(usize, Result<T, CalibrationError>),
}

/// Where a worker says it. One that panics says that too, so that nobody waits for what it was at.
struct Tell<T>(Sender<Told<T>>);

impl<T> Drop for Tell<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Told::Failed(gone()));
        }
    }
}

fn gone() -> CalibrationError {
    RuntimeError::Interface("a thread that ran it has died".to_owned()).into()
}

/// Puts what workers made back in order.
struct Order<T, F> {
    told: Receiver<Told<T>>,
    waiting: BTreeMap<usize, Result<T, CalibrationError>>,
    taken: usize,
    take: F,
}

impl<T, F: FnMut(T)> Order<T, F> {
    /// Waits for the first session, and gives its input's shape.
    fn ready(&mut self) -> Result<Vec<i64>, CalibrationError> {
        match self.told.recv() {
            Ok(Told::Ready(shape)) => Ok(shape),
            Ok(Told::Failed(error)) => Err(error),
            Ok(Told::Made(..)) | Err(_) => Err(gone()),
        }
    }

    /// Takes what was made of the first `count` batches.
    fn take_to(&mut self, count: usize) -> Result<(), CalibrationError> {
        while self.taken < count {
            if let Some(made) = self.waiting.remove(&self.taken) {
                (self.take)(made?);
                self.taken += 1;
                continue;
            }
            match self.told.recv() {
                Ok(Told::Ready(_)) => {}
                Ok(Told::Failed(error)) => return Err(error),
                Ok(Told::Made(number, made)) => drop(self.waiting.insert(number, made)),
                Err(_) => return Err(gone()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order<F>(told: Receiver<Told<u32>>, take: F) -> Order<u32, F> {
        Order { told, waiting: BTreeMap::new(), taken: 0, take }
    }

    #[test]
    fn what_workers_make_is_taken_in_order_and_the_first_failure_counts() {
        let (tell, told) = channel();
        let broken = CalibrationError::NotFinite { tensor: "t".into(), sample: 3 };
        for said in [
            Told::Ready(vec![-1, 3]),
            Told::Made(1, Ok(11)),
            Told::Ready(vec![-1, 3]),
            Told::Made(0, Ok(10)),
            Told::Made(3, Err(broken)),
            Told::Made(2, Err(CalibrationError::Cancelled)),
        ] {
            tell.send(said).unwrap();
        }
        let mut taken = Vec::new();
        let mut order = order(told, |made| taken.push(made));
        assert_eq!(order.ready().unwrap(), [-1, 3]);
        order.take_to(2).unwrap();
        assert!(matches!(order.take_to(4), Err(CalibrationError::Cancelled)));
        assert_eq!(taken, [10, 11]);
    }

    #[test]
    fn nobody_waits_for_a_worker_that_died() {
        let (tell, told) = channel();
        let dying = Tell(tell.clone());
        let died = std::thread::spawn(move || {
            let _dying = dying;
            panic!("on purpose");
        });
        assert!(died.join().is_err());
        let error = order(told, |_| ()).take_to(1).unwrap_err();
        assert!(error.to_string().contains("died"), "{error}");
        drop(tell);
    }
}
