//! Keys and certificates of one cluster run, made in memory and written below its data folder.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::{API_SERVICE, NODE, NODE_ADDRESS};

/// Who gets a kubeconfig: file name, common name, organisation.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:edgeyard-lab", "system:nodes"),
];

/// A day back: the clocks of a host and its virtual machines differ.
const BACKDATE: Duration = Duration::DAY;
const VALID: Duration = Duration::days(365);

/// Writes `ca.crt`, a key and certificate for everybody, the service accounts' key, and kubeconfigs.
pub fn write(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let ca_key = KeyPair::generate()?;
    let mut ca = params("edgeyard-lab", "", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    ca.extended_key_usages.clear();
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    fs::write(dir.join("ca.crt"), &ca_pem)?;
    fs::write(dir.join("ca.key"), ca_key.serialize_pem())?;
    let issuer = Issuer::new(ca, ca_key);

    let issue = |name: &str, params: CertificateParams| -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        fs::write(dir.join(format!("{name}.crt")), &certificate)?;
        fs::write(dir.join(format!("{name}.key")), &key)?;
        Ok((certificate, key))
    };
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        API_SERVICE,
        NODE_ADDRESS,
        "127.0.0.1",
    ];
    issue("apiserver", params("kube-apiserver", "", &names)?)?;
    issue("kubelet-serving", params(NODE, "", &[NODE, NODE_ADDRESS])?)?;
    issue("kubelet-client", params("apiserver-kubelet-client", "system:masters", &[])?)?;
    issue("front-proxy", params("front-proxy-client", "", &[])?)?;
    for (name, user, group) in USERS {
        let (certificate, key) = issue(name, params(user, group, &[])?)?;
        fs::write(dir.join(format!("{name}.conf")), kubeconfig(&ca_pem, &certificate, &key))?;
    }
    let accounts = KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    Ok(())
}

fn params(name: &str, organisation: &str, alternatives: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if !organisation.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    for alternative in alternatives {
        params.subject_alt_names.push(match alternative.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*alternative).try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::now_utc() - BACKDATE;
    params.not_after = OffsetDateTime::now_utc() + VALID;
    Ok(params)
}

fn kubeconfig(ca: &str, certificate: &str, key: &str) -> String {
    let [ca, certificate, key] = [ca, certificate, key].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: edgeyard-lab\n\
         clusters:\n- name: edgeyard-lab\n  cluster: {{server: \"https://{NODE_ADDRESS}:6443\", certificate-authority-data: {ca}}}\n\
         users:\n- name: edgeyard-lab\n  user: {{client-certificate-data: {certificate}, client-key-data: {key}}}\n\
         contexts:\n- name: edgeyard-lab\n  context: {{cluster: edgeyard-lab, user: edgeyard-lab}}\n"
    )
}
