//! Which addresses are public. A user's URI must not make a pod speak to the cluster, the node or the cloud's metadata
//! service, so names are resolved here and every address is checked before a connection is made to that very address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// True for an address of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

// The special-purpose registries of IANA (RFC 6890 and its updates).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Addresses that stand for an IPv4 one are as public as that: mapped, compatible, 6to4, NAT64.
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => inner(high, low) && (high, low) != (0, 1),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // Teredo, documentation, benchmarking, ORCHID: all in 2001::/23 or named.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        // Only 2000::/3 is given out for the public internet.
        [first, ..] => first & 0xe000 == 0x2000 && first != 0x3fff,
    }
}

/// A name with an address that may not be spoken to.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error(
    "{host} is at {address}, which is not a public address; an administrator can allow private ones (the operator's \
     setting for private addresses), or put the file into the store with `kubectl edgeyard push`"
)]
pub struct PrivateAddress {
    /// The host of the URI.
    pub host: String,
    /// What it resolves to.
    pub address: IpAddr,
}

/// Resolves names; refuses those with any address that is not public.
#[derive(Debug, Clone, Copy)]
pub struct Resolver {
    /// Whether every address is fine.
    pub allow_private: bool,
}

impl Resolver {
    /// The addresses of a host, all checked.
    async fn addresses(self, host: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
        if found.is_empty() {
            return Err(format!("{host} has no address").into());
        }
        if !self.allow_private
            && let Some(private) = found.iter().find(|found| !is_public(found.ip()))
        {
            return Err(Box::new(PrivateAddress { host, address: private.ip() }));
        }
        Ok(found)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, host) = (*self, name.as_str().to_owned());
        Box::pin(async move {
            let found = resolver.addresses(host).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let public =
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::"];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        let private = [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "fec0::1",
            "3fff::1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_unless_allowed() {
        let strict = Resolver { allow_private: false }.addresses("localhost".to_owned()).await.unwrap_err();
        assert!(strict.to_string().contains("not a public address"), "{strict}");
        assert!(!Resolver { allow_private: true }.addresses("localhost".to_owned()).await.unwrap().is_empty());
    }
}
