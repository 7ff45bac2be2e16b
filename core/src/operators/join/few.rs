//! A list that is nearly always short: its first element lies in it, and only with the second comes memory of its own.
//!
//! Of the keys of a joined stream most have one record a side and window. A `Vec` each would be most of a join's work:
//! an allocation for each record, and a miss to come to it.
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// None, one, or several, in their order. Serialises as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Few<T> {
    /// Nothing.
    #[default]
    None,
    /// Without memory of its own.
    One(T),
    /// Two or more, or one that was read back.
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// All of them.
    #[inline(always)]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// As [`Few::as_slice`], to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Puts one behind the others.
    #[inline(always)]
    pub fn push(&mut self, item: T) {
        match self {
            Self::None => *self = Self::One(item),
            _ => self.insert(self.as_slice().len(), item),
        }
    }

    /// Puts one in front of the one that is at `index`; behind all, if there is none.
    #[inline(never)]
    pub fn insert(&mut self, index: usize, item: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(item),
            Self::One(one) => {
                let mut many = Vec::with_capacity(4);
                many.extend(if index == 0 { [item, one] } else { [one, item] });
                Self::Many(many)
            }
            Self::Many(mut many) => {
                many.insert(index.min(many.len()), item);
                Self::Many(many)
            }
        };
    }

    /// Takes so many off at the front.
    pub fn drain_front(&mut self, count: usize) -> Vec<T> {
        let mut front = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        };
        let rest = front.split_off(count.min(front.len()));
        *self = rest.into();
        front
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut many: Vec<T>) -> Self {
        if many.len() > 1 {
            return Self::Many(many);
        }
        many.pop().map_or(Self::None, Self::One)
    }
}

impl<T: Serialize> Serialize for Few<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_whatever_its_length() {
        let (mut few, mut list) = (Few::None, Vec::new());
        for (index, item) in [(0, 'a'), (0, 'b'), (1, 'c'), (3, 'd'), (0, 'e')] {
            few.insert(index, item);
            list.insert(index, item);
            assert_eq!(few.as_slice(), list);
            assert_eq!(few.as_mut_slice(), list.clone());
            let bytes = serde_json::to_vec(&few).unwrap();
            assert_eq!(bytes, serde_json::to_vec(&list).unwrap());
            assert_eq!(serde_json::from_slice::<Few<char>>(&bytes).unwrap(), few);
        }
        let mut pushed = Few::None;
        for item in &list {
            pushed.push(*item);
        }
        assert_eq!(pushed, few);
        assert_eq!((pushed.drain_front(2), pushed.drain_front(9)), (list[..2].to_vec(), list[2..].to_vec()));
        assert!(pushed.is_empty());
        assert!(Few::<char>::from(Vec::new()).is_empty() && !few.is_empty());
    }
}
