//! Waits until a machine is cool: to a temperature, not for a time, because how fast it cools depends on what ran before.
//!
//! Who calls brings the thermometer and the pause, so that nothing here sleeps or reads a clock.

use std::time::Duration;

use super::Root;

/// Longer than this nobody waits: a room that is too warm does not cool a board.
pub const MOST: Duration = Duration::from_secs(300);
/// Time between two looks.
const STEP: Duration = Duration::from_millis(500);
/// Zones that tell less or more are broken or not there (drivers tell −274 °C or 0x7fffffff for "no reading").
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -40_000..=150_000;

/// What waiting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoolDown {
    /// The temperature that was waited for, in thousandths of a degree Celsius.
    pub target_millidegrees: i64,
    /// The hottest zone before; `None`: no zone can be read, and nothing was waited for.
    pub first_millidegrees: Option<i64>,
    /// The hottest zone at the end.
    pub last_millidegrees: Option<i64>,
    /// How long was waited.
    pub waited: Duration,
}

impl CoolDown {
    /// Why the machine is not known to be cool: `TooHot` when the cap ended the wait, `TemperatureUnknown` without a zone.
    pub fn reason(&self) -> Option<&'static str> {
        match self.last_millidegrees {
            None => Some("TemperatureUnknown"),
            Some(last) if last > self.target_millidegrees => Some("TooHot"),
            Some(_) => None,
        }
    }
}

/// The hottest thermal zone in thousandths of a degree Celsius (Documentation/driver-api/thermal/sysfs-api).
pub fn hottest(root: &Root) -> Option<i64> {
    const FOLDER: &str = "/sys/class/thermal";
    let zones = root.list(FOLDER);
    zones
        .iter()
        .filter(|name| name.starts_with("thermal_zone"))
        .filter_map(|zone| root.read(&format!("{FOLDER}/{zone}/temp"))?.parse().ok())
        .filter(|told| PLAUSIBLE.contains(told))
        .max()
}

/// Waits until the hottest zone is not above `target_millidegrees`, at most for `cap`. `pause` sleeps, and ends the wait
/// when it fails (the run was stopped).
///
/// # Errors
/// What `pause` fails with.
pub fn wait<E>(
    target_millidegrees: i64,
    cap: Duration,
    mut thermometer: impl FnMut() -> Option<i64>,
    mut pause: impl FnMut(Duration) -> Result<(), E>,
) -> Result<CoolDown, E> {
    let first_millidegrees = thermometer();
    let mut cooled = CoolDown {
        target_millidegrees,
        first_millidegrees,
        last_millidegrees: first_millidegrees,
        waited: Duration::ZERO,
    };
    while cooled.last_millidegrees.is_some_and(|told| told > target_millidegrees) && cooled.waited < cap {
        let step = STEP.min(cap - cooled.waited);
        pause(step)?;
        cooled.waited += step;
        // A zone that cannot be read this once says nothing new.
        cooled.last_millidegrees = thermometer().or(cooled.last_millidegrees);
    }
    Ok(cooled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Newton's law of cooling from 80 to 25 degrees with a time constant of 60 s.
    fn cooling(target: i64, cap: Duration) -> CoolDown {
        let passed = std::cell::Cell::new(0.0);
        wait(
            target,
            cap,
            || Some(25_000 + (55_000.0 * f64::exp(-passed.get() / 60.0)) as i64),
            |step| {
                passed.set(passed.get() + step.as_secs_f64());
                Ok::<_, Infallible>(())
            },
        )
        .unwrap()
    }

    #[test]
    fn waits_as_long_as_the_law_of_cooling_says() {
        let cooled = cooling(50_000, MOST);
        assert_eq!(cooled.reason(), None);
        // 60 s · ln(55 / 25) = 47.3 s, and half a second at most until it is seen.
        assert!((47.3..=47.81).contains(&cooled.waited.as_secs_f64()), "{cooled:?}");
        assert_eq!(cooling(90_000, MOST).waited, Duration::ZERO);
    }

    #[test]
    fn a_cap_ends_the_wait_and_says_so() {
        let cooled = cooling(20_000, Duration::from_millis(1250));
        assert_eq!((cooled.reason(), cooled.waited), (Some("TooHot"), Duration::from_millis(1250)));
    }

    #[test]
    fn without_a_zone_nothing_is_waited_for() {
        let cooled = wait(40_000, MOST, || None, |_| Err("paused")).unwrap();
        assert_eq!((cooled.reason(), cooled.waited), (Some("TemperatureUnknown"), Duration::ZERO));
    }

    #[test]
    fn a_stop_ends_the_wait() {
        assert_eq!(wait(40_000, MOST, || Some(70_000), |_| Err("stopped")), Err("stopped"));
    }

    #[test]
    fn the_hottest_plausible_zone_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(hottest(&root), None);
        for (zone, told) in [("thermal_zone0", "41000"), ("thermal_zone1", "45250"), ("thermal_zone2", "-274000")] {
            let path = folder.path().join("sys/class/thermal").join(zone);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("temp"), told).unwrap();
        }
        assert_eq!(hottest(&root), Some(45_250));
    }
}
