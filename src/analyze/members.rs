//! The hosts that have a line. Most lines of a large fleet are on one host: these hold its number and nothing else.

use std::ops::{BitAnd, BitOrAssign, Sub};

use roaring::RoaringBitmap;

/// A set of hosts, by their ordinals; sixteen bytes for a single host.
#[derive(Debug, Clone)]
pub(super) enum Members {
    One(u32),
    /// None, or several.
    Some(Box<RoaringBitmap>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Some(Box::default())
    }
}

impl From<RoaringBitmap> for Members {
    fn from(hosts: RoaringBitmap) -> Self {
        match (hosts.len(), hosts.min()) {
            (1, Some(host)) => Self::One(host),
            _ => Self::Some(Box::new(hosts)),
        }
    }
}

impl FromIterator<u32> for Members {
    fn from_iter<I: IntoIterator<Item = u32>>(hosts: I) -> Self {
        hosts.into_iter().collect::<RoaringBitmap>().into()
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one == other,
            (Self::Some(some), Self::Some(other)) => some == other,
            _ => self.len() == other.len() && self.min() == other.min(),
        }
    }
}

impl Members {
    /// Reads what a prevalence file holds; none when it is broken.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        single(bytes).map(Self::One).or_else(|| Some(RoaringBitmap::deserialize_from(bytes).ok()?.into()))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Some(hosts) => hosts.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn min(&self) -> Option<u32> {
        match self {
            Self::One(host) => Some(*host),
            Self::Some(hosts) => hosts.min(),
        }
    }

    pub(super) fn max(&self) -> Option<u32> {
        match self {
            Self::One(host) => Some(*host),
            Self::Some(hosts) => hosts.max(),
        }
    }

    /// The one in the middle, by ordinal.
    pub(super) fn middle(&self) -> Option<u32> {
        match self {
            Self::One(host) => Some(*host),
            Self::Some(hosts) => hosts.select((hosts.len() / 2) as u32),
        }
    }

    pub(super) fn contains(&self, host: u32) -> bool {
        match self {
            Self::One(one) => *one == host,
            Self::Some(hosts) => hosts.contains(host),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let (one, some) = match self {
            Self::One(host) => (Some(*host), None),
            Self::Some(hosts) => (None, Some(hosts.iter())),
        };
        one.into_iter().chain(some.into_iter().flatten())
    }

    pub(super) fn intersection_len(&self, hosts: &RoaringBitmap) -> u64 {
        match self {
            Self::One(host) => u64::from(hosts.contains(*host)),
            Self::Some(some) => some.intersection_len(hosts),
        }
    }

    pub(super) fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Self::One(host) => RoaringBitmap::from_iter([*host]),
            Self::Some(hosts) => hosts.as_ref().clone(),
        }
    }

    /// Leaves those that are `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(u32) -> bool) {
        match self {
            Self::One(host) if wanted(*host) => {}
            Self::One(_) => *self = Self::default(),
            Self::Some(hosts) if hosts.iter().all(&wanted) => {}
            Self::Some(hosts) => *self = hosts.iter().filter(|host| wanted(*host)).collect(),
        }
    }

    /// Adds hosts.
    pub(super) fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::One(one), Self::One(host)) if one == host => {}
            (Self::Some(hosts), _) if !hosts.is_empty() => **hosts |= other,
            (Self::Some(_), _) => self.clone_from(other),
            (Self::One(_), _) => {
                let mut hosts = self.to_bitmap();
                hosts |= other;
                *self = hosts.into();
            }
        }
    }
}

/// The host of a bitmap of one, in the portable format of Roaring bitmaps: cookie 12346, one container, its key, its
/// number of values less one, where it starts, and the value.
fn single(bytes: &[u8]) -> Option<u32> {
    const HEAD: [u8; 8] = [0x3a, 0x30, 0, 0, 1, 0, 0, 0];
    let rest = bytes.strip_prefix(&HEAD)?;
    match rest {
        [key_low, key_high, 0, 0, 16, 0, 0, 0, low, high] => {
            Some(u32::from_le_bytes([*low, *high, *key_low, *key_high]))
        }
        _ => None,
    }
}

impl BitOrAssign<&Members> for RoaringBitmap {
    fn bitor_assign(&mut self, members: &Members) {
        match members {
            Members::One(host) => drop(self.insert(*host)),
            Members::Some(hosts) => *self |= hosts.as_ref(),
        }
    }
}

impl BitAnd<&RoaringBitmap> for &Members {
    type Output = Members;

    fn bitand(self, hosts: &RoaringBitmap) -> Members {
        match self {
            Members::One(host) if hosts.contains(*host) => Members::One(*host),
            Members::One(_) => Members::default(),
            Members::Some(some) => (some.as_ref() & hosts).into(),
        }
    }
}

impl Sub<&Members> for &RoaringBitmap {
    type Output = RoaringBitmap;

    fn sub(self, members: &Members) -> RoaringBitmap {
        match members {
            Members::One(host) => {
                let mut hosts = self.clone();
                hosts.remove(*host);
                hosts
            }
            Members::Some(hosts) => self - hosts.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hosts: &RoaringBitmap) -> Vec<u8> {
        let mut bytes = Vec::new();
        hosts.serialize_into(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_single_host_is_read_without_a_bitmap() {
        for host in [0, 1, 255, 65_535, 65_536, 1_000_000, u32::MAX] {
            let bytes = bytes(&RoaringBitmap::from_iter([host]));
            assert_eq!(single(&bytes), Some(host));
            assert!(matches!(Members::parse(&bytes), Some(Members::One(one)) if one == host));
        }
        assert_eq!(single(&bytes(&RoaringBitmap::from_iter([1, 2]))), None);
        assert!(Members::parse(&[0x3a, 0x30, 0, 0, 1, 0, 0, 0, 0]).is_none());
        assert!(Members::parse(&[]).is_none());
    }

    proptest! {
        #[test]
        fn sets_are_what_bitmaps_are(
            mine in prop::collection::btree_set(0_u32..8, 0..4),
            theirs in prop::collection::btree_set(0_u32..8, 0..4),
        ) {
            let (a, b) = (RoaringBitmap::from_iter(&mine), RoaringBitmap::from_iter(&theirs));
            let (mine, theirs): (Members, Members) = (a.clone().into(), Members::parse(&bytes(&b)).unwrap());
            prop_assert_eq!((&mine & &b).to_bitmap(), &a & &b);
            prop_assert_eq!(&a - &theirs, &a - &b);
            prop_assert_eq!(mine.intersection_len(&b), a.intersection_len(&b));
            prop_assert_eq!((mine.len(), mine.min(), mine.is_empty()), (a.len(), a.min(), a.is_empty()));
            prop_assert!((0..8).all(|host| mine.contains(host) == a.contains(host)));
            prop_assert_eq!(mine.iter().collect::<Vec<_>>(), a.iter().collect::<Vec<_>>());
            let mut some = mine.clone();
            some.retain(|host| b.contains(host));
            prop_assert_eq!(some.to_bitmap(), &a & &b);
            let mut both = mine.clone();
            both.add(&theirs);
            prop_assert_eq!(both.to_bitmap(), &a | &b);
            let mut bitmap = a.clone();
            bitmap |= &theirs;
            prop_assert_eq!(bitmap, &a | &b);
        }
    }
}
