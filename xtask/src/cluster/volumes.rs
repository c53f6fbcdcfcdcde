//! Local volumes: made in advance, and made anew once a claim has let go of them (a local volume has no provisioner to do it).

use std::fmt::Write;

use anyhow::Result;
use fs_err as fs;

use super::config::data;
use super::{NODE, kubectl};
use crate::shell::{output, piped};

const COUNT: usize = 16;

/// Makes the volumes' folders and returns their manifests.
pub fn create() -> Result<String> {
    let mut manifests = String::new();
    for number in 0..COUNT {
        manifests += &create_one(&format!("lab-{number:02}"))?;
    }
    Ok(manifests)
}

fn create_one(name: &str) -> Result<String> {
    let dir = data().join("volumes").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let mut manifest = String::new();
    write!(
        manifest,
        "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec:\n  capacity: {{storage: 10Gi}}\n  \
         accessModes: [ReadWriteOnce, ReadOnlyMany, ReadWriteMany]\n  persistentVolumeReclaimPolicy: Retain\n  \
         storageClassName: lab-local\n  local: {{path: {}}}\n  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
         [{{key: kubernetes.io/hostname, operator: In, values: [{NODE}]}}]}}]}}}}\n",
        dir.display()
    )?;
    Ok(manifest)
}

/// Empties the volumes whose claims were deleted and offers them again.
///
/// # Errors
/// What the API server said.
pub fn recycle() -> Result<()> {
    let path = r#"jsonpath={range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}"#;
    for name in
        output(&mut kubectl(["get", "persistentvolumes", "-o", path])?)?.lines().filter(|n| n.starts_with("lab-"))
    {
        output(&mut kubectl(["delete", "persistentvolume", name])?)?;
        piped(&mut kubectl(["apply", "-f", "-"])?, &create_one(name)?)?;
    }
    Ok(())
}
