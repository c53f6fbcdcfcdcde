//! An NVIDIA GPU, by NVML: the energy counter in millijoules since the driver was loaded (Volta and newer), or else the power
//! in milliwatts. The library is found when it is needed, so the program runs without it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::time::Duration;

use edgeyard_measure::energy::{Quantity, Reading};
use libloading::Library;

use super::{Meter, failed, missing, plausible};
use crate::error::Failure;

/// The driver's library; another path may be named by `EDGEYARD_NVML`.
const LIBRARY: &str = "libnvidia-ml.so.1";
const VARIABLE: &str = "EDGEYARD_NVML";
/// The driver renews both numbers every 20 to 100 ms.
const PERIOD: u64 = 100_000_000;
const SUCCESS: c_int = 0;
const NOT_SUPPORTED: c_int = 3;

type Device = *mut c_void;
type Plain = unsafe extern "C" fn() -> c_int;
type ByIndex = unsafe extern "C" fn(c_uint, *mut Device) -> c_int;
type TotalEnergy = unsafe extern "C" fn(Device, *mut c_ulonglong) -> c_int;
type PowerUsage = unsafe extern "C" fn(Device, *mut c_uint) -> c_int;
type Name = unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// One GPU.
pub struct Nvml {
    library: Library,
    device: Device,
    index: u32,
    scope: String,
    /// The counter at the beginning; `None`: this GPU has none, and its power is read.
    first: Option<u64>,
    last: u64,
}

// SAFETY: NVML is thread-safe (NVML API Reference, 1.1), and a device handle is no more than a name.
unsafe impl Send for Nvml {}

impl Nvml {
    /// The GPU with an index as `nvidia-smi` counts them; by default the first.
    pub fn open(index: Option<&str>) -> Result<Self, Failure> {
        let index = index.unwrap_or("0");
        let index = index.parse().map_err(|_| {
            Failure::bad_input("UnknownMeter", format!("meter nvml:{index}: an index from 0 was expected"))
        })?;
        Self::from_library(&std::env::var(VARIABLE).unwrap_or_else(|_| LIBRARY.into()), index)
    }

    /// A GPU of a library.
    pub fn from_library(path: &str, index: u32) -> Result<Self, Failure> {
        // SAFETY: loading NVML runs only its own initialisers.
        let library = unsafe { Library::new(path) }
            .map_err(|error| missing(format!("{path} cannot be loaded: is the NVIDIA driver here? {error}")))?;
        let mut nvml =
            Self { library, device: std::ptr::null_mut(), index, scope: String::new(), first: None, last: 0 };
        // SAFETY: each function has the signature of nvml.h, and gets valid pointers.
        let (code, what) = unsafe { (nvml.function::<Plain>("nvmlInit_v2")?(), "nvmlInit_v2") };
        nvml.check(code, what).map_err(|failure| missing(failure.message))?;
        let mut device = std::ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe { nvml.function::<ByIndex>("nvmlDeviceGetHandleByIndex_v2")?(index, &raw mut device) };
        nvml.check(code, "nvmlDeviceGetHandleByIndex_v2").map_err(|failure| missing(failure.message))?;
        nvml.device = device;
        let mut name = [0; 96];
        // SAFETY: as above; the length is the buffer's, and NVML ends the text within it.
        let code =
            unsafe { nvml.function::<Name>("nvmlDeviceGetName")?(device, name.as_mut_ptr(), name.len() as c_uint) };
        nvml.check(code, "nvmlDeviceGetName")?;
        let name: Vec<u8> = name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
        nvml.scope = format!("GPU board, {}", String::from_utf8_lossy(&name));
        match nvml.energy()? {
            Some(first) => (nvml.first, nvml.last) = (Some(first), first),
            None => {
                nvml.power()?;
            }
        }
        Ok(nvml)
    }

    fn function<T: Copy>(&self, name: &str) -> Result<T, Failure> {
        // SAFETY: the types above are those of nvml.h; the library outlives the copy's use.
        unsafe { self.library.get::<T>(name.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|error| missing(format!("the NVIDIA driver has no {name}: {error}")))
    }

    fn check(&self, code: c_int, what: &str) -> Result<(), Failure> {
        if code == SUCCESS {
            return Ok(());
        }
        let said = self.function::<ErrorString>("nvmlErrorString").ok().map(|text| {
            // SAFETY: NVML returns text that lives as long as the library.
            unsafe { CStr::from_ptr(text(code)) }.to_string_lossy().into_owned()
        });
        Err(failed(format!("{what} of GPU {}: {} ({code})", self.index, said.unwrap_or_default())))
    }

    /// Millijoules since the driver was loaded; `None` where the GPU does not count them.
    fn energy(&self) -> Result<Option<u64>, Failure> {
        const WHAT: &str = "nvmlDeviceGetTotalEnergyConsumption";
        let Ok(ask) = self.function::<TotalEnergy>(WHAT) else { return Ok(None) };
        let mut millijoules = 0;
        // SAFETY: the device is NVML's, the pointer valid.
        match unsafe { ask(self.device, &raw mut millijoules) } {
            NOT_SUPPORTED => Ok(None),
            code => self.check(code, WHAT).map(|()| Some(millijoules)),
        }
    }

    fn power(&self) -> Result<f64, Failure> {
        const WHAT: &str = "nvmlDeviceGetPowerUsage";
        let mut milliwatts = 0;
        // SAFETY: as above.
        let code = unsafe { self.function::<PowerUsage>(WHAT)?(self.device, &raw mut milliwatts) };
        self.check(code, WHAT)?;
        plausible(f64::from(milliwatts) / 1e3, &format!("{WHAT} told {milliwatts} mW"))
    }
}

impl Meter for Nvml {
    fn name(&self) -> String {
        format!("nvml:{}", self.index)
    }

    fn scope(&self) -> String {
        self.scope.clone()
    }

    fn quantity(&self) -> Quantity {
        if self.first.is_some() { Quantity::Energy } else { Quantity::Power }
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let value = match self.first {
            None => self.power()?,
            Some(first) => {
                let told = self.energy()?.ok_or_else(|| failed("the GPU counts no energy any more"))?;
                if told < self.last {
                    return Err(failed(format!(
                        "the GPU's energy counter fell from {} to {told} mJ: was the driver reset?",
                        self.last
                    )));
                }
                self.last = told;
                (told - first) as f64 / 1e3
            }
        };
        Ok(vec![Reading { nanoseconds: now, value }])
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        if let Ok(shutdown) = self.function::<Plain>("nvmlShutdown") {
            // SAFETY: it was initialised; NVML counts how often.
            unsafe { shutdown() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with NVML's functions and another inside, made by the C compiler that links this test.
    fn library(folder: &std::path::Path, energy: &str) -> String {
        let source = format!(
            r#"
            #include <stdio.h>
            static unsigned long long counted = 5000000;
            int nvmlInit_v2(void) {{ return 0; }}
            int nvmlShutdown(void) {{ return 0; }}
            int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) {{ *d = &counted; return i < 2 ? 0 : 2; }}
            int nvmlDeviceGetName(void *d, char *n, unsigned l) {{ snprintf(n, l, "Test GPU"); return 0; }}
            int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) {{ *mw = 71500; return 0; }}
            const char *nvmlErrorString(int code) {{ return code == 2 ? "Invalid Argument" : "GPU is lost"; }}
            int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {{ {energy} }}
            "#
        );
        let (from, to) = (folder.join("nvml.c"), folder.join("libnvidia-ml.so.1"));
        std::fs::write(&from, source).unwrap();
        let made =
            std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&to).arg(&from).status().unwrap();
        assert!(made.success());
        to.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_counter_is_read_and_a_lost_gpu_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = library(
            folder.path(),
            "counted += 250; if (counted > 5000800) return 15; *mj = counted; return d == &counted ? 0 : 2;",
        );
        let mut meter = Nvml::from_library(&path, 1).unwrap();
        assert_eq!((meter.quantity(), meter.scope().as_str()), (Quantity::Energy, "GPU board, Test GPU"));
        assert_eq!(meter.read(1).unwrap(), [Reading { nanoseconds: 1, value: 0.25 }]);
        assert_eq!(meter.read(2).unwrap(), [Reading { nanoseconds: 2, value: 0.5 }]);
        let failure = meter.read(3).unwrap_err();
        assert!(failure.reason == "MeterFailed" && failure.message.contains("GPU is lost"), "{failure}");
        let failure = Nvml::from_library(&path, 7).err().unwrap();
        assert!(failure.reason == "MeterMissing" && failure.message.contains("GPU 7: Invalid Argument"), "{failure}");
    }

    #[test]
    fn an_old_gpu_tells_its_power() {
        let folder = tempfile::tempdir().unwrap();
        let mut meter = Nvml::from_library(&library(folder.path(), "return 3;"), 0).unwrap();
        assert_eq!(meter.quantity(), Quantity::Power);
        assert_eq!(meter.read(9).unwrap(), [Reading { nanoseconds: 9, value: 71.5 }]);
    }

    #[test]
    fn a_counter_that_falls_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = library(folder.path(), "counted -= 1; *mj = counted; return 0;");
        assert!(Nvml::from_library(&path, 0).unwrap().read(1).unwrap_err().message.contains("fell from"));
    }

    #[test]
    fn without_a_driver_the_meter_is_missing() {
        assert_eq!(Nvml::from_library("/nowhere/libnvidia-ml.so.1", 0).err().unwrap().reason, "MeterMissing");
    }
}
