//! Gives the Parquet reader the bytes of a file, and limits how much it may ask for.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use super::thrift::{check_footer, page_size};
use crate::error::Error;
use crate::source::bad::shown;
use crate::source::location::DataFile;

/// The size to which a page may always be decompressed; writers make pages of 1 MiB, or of one row if that is larger.
const PAGE_BYTES: u64 = 128 << 20;

/// The largest decompressed page, whatever the file's size.
const MOST_PAGE_BYTES: u64 = 512 << 20;

/// How many times the size of its file a decompressed page may have, beyond [`PAGE_BYTES`].
const PAGE_FACTOR: u64 = 1000;

/// Reads byte ranges of one file, local or in an object store.
#[derive(Debug, Clone)]
pub(in crate::source) struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl ObjectReader {
    /// A reader of `file`.
    ///
    /// # Errors
    /// Kind `Input` if it is not there or is empty.
    pub(in crate::source) fn new(file: &DataFile) -> crate::Result<Self> {
        let (store, path, size) = file.object()?;
        match size {
            0 => Err(Error::input(format!("{}: empty, expected a Parquet file", file.name()))),
            _ => Ok(Self { store, path, size }),
        }
    }

    /// Bytes of the file.
    pub(in crate::source) fn size(&self) -> u64 {
        self.size
    }

    /// The metadata at the end of the file, which is checked before it is decoded.
    async fn metadata(&mut self) -> Result<ParquetMetaData> {
        let refused = |message: &str| ParquetError::General(message.to_owned());
        let tail = FOOTER_SIZE as u64;
        let end = self.size.checked_sub(tail).ok_or_else(|| refused("shorter than the end of any Parquet file"))?;
        let footer = match FooterTail::try_from(self.get_bytes(end..self.size).await?.as_ref()) {
            Ok(footer) => footer,
            Err(_) => {
                let begin = self.get_bytes(0..self.size.min(16)).await?;
                return Err(refused(&format!("it does not end like one, and begins {}", begins(&begin))));
            }
        };
        if footer.is_encrypted_footer() {
            return Err(refused("encrypted, which is not supported"));
        }
        let start = end.checked_sub(footer.metadata_length() as u64);
        let start = start.ok_or_else(|| refused("its metadata would be longer than the file"))?;
        let bytes = self.get_bytes(start..end).await?;
        check_footer(&bytes).map_err(|e| ParquetError::External(Box::new(e)))?;
        ParquetMetaDataReader::decode_metadata(&bytes)
    }
}

/// What a file that is not a Parquet file seems to be, by its first bytes.
fn begins(bytes: &[u8]) -> String {
    let known: [(&[u8], &str); 6] = [
        (b"PAR1", "like one: cut off, or still being written"),
        (&[0x1f, 0x8b], "like a gzip file: decompress it first"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "like a zstd file: decompress it first"),
        (b"PK\x03\x04", "like a zip file: unpack it first"),
        (b"ARROW1", "like an Arrow (Feather) file: write it as Parquet first"),
        (b"ORC", "like an ORC file: write it as Parquet first"),
    ];
    let found = known.iter().find(|(start, _)| bytes.starts_with(start));
    found.map_or_else(|| format!("with {}", shown(bytes)), |(_, what)| (*what).to_owned())
}

fn io(e: object_store::Error) -> ParquetError {
    let e = match e {
        object_store::Error::NotSupported { .. } => Error::io(
            "its server does not give parts of a file (range requests), which reading Parquet needs; download the file, \
             and give its path",
        ),
        e => Error::from(e),
    };
    ParquetError::External(Box::new(e))
}

/// Sees to it that a file of `size` bytes has the bytes `range`. A damaged file may name any, and a store that is asked for
/// bytes that are not there says so as if the store were at fault.
fn within(range: &Range<u64>, size: u64) -> Result<()> {
    if range.start > range.end || range.end > size {
        let (start, end) = (range.start, range.end);
        return Err(ParquetError::EOF(format!("bytes {start} to {end} of a file of {size} bytes")));
    }
    Ok(())
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            within(&range, self.size)?;
            // Stores refuse to read nothing.
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            self.store.get_range(&self.path, range).await.map_err(io)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            ranges.iter().try_for_each(|range| within(range, self.size))?;
            let asked: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
            let mut read = self.store.get_ranges(&self.path, &asked).await.map_err(io)?.into_iter();
            let of = |range: &Range<u64>| if range.is_empty() { None } else { read.next() };
            Ok(ranges.iter().map(of).map(Option::unwrap_or_default).collect())
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move { Ok(Arc::new(self.metadata().await?)) }.boxed()
    }
}

/// An open local file, whose pages are refused if they would become too large.
#[derive(Debug)]
pub(in crate::source) struct LocalFile {
    file: File,
    size: u64,
}

impl LocalFile {
    /// The open `file` of `size` bytes.
    pub(in crate::source) fn new(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// The same file, opened again.
    pub(in crate::source) fn again(&self) -> crate::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, size: self.size })
    }

    fn most_page_bytes(&self) -> u64 {
        self.size.saturating_mul(PAGE_FACTOR).clamp(PAGE_BYTES, MOST_PAGE_BYTES)
    }
}

impl Length for LocalFile {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for LocalFile {
    type T = BufReader<File>;

    /// The reader uses this, and not [`get_bytes`](ChunkReader::get_bytes), to read from the header of a page on.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        let mut read = BufReader::new(file);
        let (found, most) = (page_size(read.fill_buf()?), self.most_page_bytes());
        match found {
            Some(bytes) if u64::try_from(bytes).is_ok_and(|bytes| bytes > most) => {
                Err(ParquetError::General(format!("a page of {bytes} bytes, expected at most {most}")))
            }
            _ => Ok(read),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        within(&(start..start.saturating_add(length as u64)), self.size)?;
        self.file.get_bytes(start, length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A file that begins with the header of a page whose decompressed size is `bytes`.
    fn page_of(bytes: u64) -> LocalFile {
        let mut header = vec![0x15, 0x00, 0x15];
        let mut zigzag = bytes << 1;
        while zigzag >= 0x80 {
            header.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        header.push(zigzag as u8);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&header).unwrap();
        LocalFile::new(file, header.len() as u64)
    }

    #[test]
    fn a_page_may_become_so_large_and_no_larger() {
        assert!(page_of(PAGE_BYTES).get_read(0).is_ok());
        let e = page_of(PAGE_BYTES + 1).get_read(0).unwrap_err().to_string();
        assert!(e.contains("a page of 134217729 bytes, expected at most 134217728"), "{e}");
        // A larger file may have larger pages, up to a bound.
        let large = |bytes| LocalFile { size: 1 << 30, ..page_of(bytes) };
        assert!(large(MOST_PAGE_BYTES).get_read(0).is_ok());
        assert!(large(MOST_PAGE_BYTES + 1).get_read(0).is_err());
    }

    #[test]
    fn no_more_is_read_than_there_is() {
        assert!(page_of(1).get_bytes(2, 2).is_ok());
        for (start, length) in [(0, 1 << 40), (4, 1), (u64::MAX, 1)] {
            assert!(page_of(1).get_bytes(start, length).is_err(), "{length} bytes at {start}");
        }
    }

    #[tokio::test]
    async fn bytes_that_a_file_does_not_have_are_the_file_s_fault() {
        let store = Arc::new(object_store::memory::InMemory::new());
        store.put(&Path::from("a"), vec![7_u8; 10].into()).await.unwrap();
        let mut reader = ObjectReader { store, path: Path::from("a"), size: 10 };
        assert_eq!(reader.get_bytes(2..10).await.unwrap().len(), 8);
        assert_eq!(reader.get_bytes(10..10).await.unwrap().len(), 0);
        let lengths: Vec<usize> =
            reader.get_byte_ranges(vec![0..0, 3..5, 10..10, 9..10]).await.unwrap().iter().map(Bytes::len).collect();
        assert_eq!(lengths, [0, 2, 0, 1]);
        #[expect(clippy::reversed_empty_ranges)]
        for range in [10..11, 5..4, u64::MAX - 1..u64::MAX] {
            let one = reader.get_bytes(range.clone()).await.map(|_| ());
            let some = reader.get_byte_ranges(vec![0..1, range]).await.map(|_| ());
            for e in [one, some].map(|read| crate::Error::from(read.unwrap_err())) {
                assert!(e.kind() == crate::Kind::Input && e.to_string().contains("of a file of 10 bytes"), "{e}");
            }
        }
    }

    #[test]
    fn a_server_without_ranges_is_named_as_that() {
        let e = crate::Error::from(io(object_store::Error::NotSupported { source: "Range request".into() }));
        assert_eq!(e.kind(), crate::Kind::Io);
        assert!(e.to_string().contains("range requests") && e.to_string().contains("download the file"), "{e}");
    }

    #[test]
    fn other_files_are_called_by_their_names() {
        assert!(begins(&[0x1f, 0x8b, 8]).contains("gzip"));
        assert!(begins(b"PAR1....").contains("cut off"));
        assert_eq!(begins(b"<!DOCTYPE\x1b[2J"), "with \"<!DOCTYPE\\u{1b}[2J\"");
    }
}
