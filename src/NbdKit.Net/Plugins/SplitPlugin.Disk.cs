using NbdKit.Buffers;

namespace NbdKit.Plugins;

// One context: the files, opened. Every call gives its offset, so that any number may run at once.
public sealed partial class SplitPlugin
{
    private sealed class Disk : INbdPluginHandle
    {
        private readonly SparseFile[] _files;

        // The offset of each file in the disk, and at the end the size of the disk.
        private readonly long[] _starts;

        public Disk(IReadOnlyList<string> paths, bool readOnly)
        {
            _files = new SparseFile[paths.Count];
            _starts = new long[_files.Length + 1];
            try
            {
                for (int i = 0; i < _files.Length; i++)
                {
                    _files[i] = SparseFile.Open(paths[i], readOnly, followLinks: true, FileOptions.None);
                    if (_files[i].Size > long.MaxValue - _starts[i])
                    {
                        throw new NbdException(NbdError.InvalidArgument, "the files are more than 2^63-1 bytes in all");
                    }
                    _starts[i + 1] = _starts[i] + _files[i].Size;
                }
            }
            catch
            {
                Close();
                throw;
            }
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        {
            bool native = _files.All(file => file.IsNative);
            return new(new NbdExportInfo
            {
                Size = _starts[^1],
                CanWrite = _files.All(file => file.CanWrite),
                CanFlush = true,
                CanTrim = native,
                CanZero = native ? Support.Native : Support.Emulate,
                CanFastZero = true,
                CanFua = Support.Native,
                CanCache = native ? Support.Native : Support.Emulate,
                CanExtents = _files.Any(file => file.CanExtents),
                CanReadSparse = Support.Emulate,
                // A flush is of the file, whoever wrote to it.
                CanMultiConn = true,
            });
        }

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            int i = IndexOf(offset);
            return buffer.Length <= _starts[i + 1] - offset
                ? _files[i].ReadAsync(buffer, offset - _starts[i], cancellationToken)
                : ReadAcrossAsync(i, buffer, offset, cancellationToken);
        }

        public ValueTask WriteAsync(
            ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            int i = IndexOf(offset);
            return data.Length <= _starts[i + 1] - offset
                ? _files[i].WriteAsync(data, offset - _starts[i], IsFua(flags), cancellationToken)
                : WriteAcrossAsync(i, data, offset, IsFua(flags), cancellationToken);
        }

        public async ValueTask FlushAsync(CancellationToken cancellationToken)
        {
            foreach (SparseFile file in _files)
            {
                await file.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }

        public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => ForEachAsync(
                offset, length, (file, from, count) => file.TrimAsync(from, count, IsFua(flags), cancellationToken));

        public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => ForEachAsync(offset, length, (file, from, count) => file.ZeroAsync(from, count, flags, cancellationToken));

        public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
            => ForEachAsync(offset, length, (file, from, count) => file.CacheAsync(from, count, cancellationToken));

        public async ValueTask ExtentsAsync(
            long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        {
            bool one = (flags & RequestFlags.RequestOne) != 0;
            int i = IndexOf(offset);
            while (length > 0 && !extents.IsFull && !(one && extents.Count > 1))
            {
                long from = offset - _starts[i];
                long count = Math.Min(length, _starts[i + 1] - offset);
                if (count > 0 && _files[i].CanExtents)
                {
                    var part = new ExtentList(from, _files[i].Size, extents.MetaContext);
                    await _files[i].ExtentsAsync(from, count, one, part, cancellationToken).ConfigureAwait(false);
                    foreach (Extent extent in part)
                    {
                        extents.Add(_starts[i] + extent.Offset, extent.Length, extent.Status);
                    }
                    // A file may say less than it was asked, or more; what it said is where the answer goes on.
                    count = _starts[i] + part.Covered - offset;
                }
                else
                {
                    extents.Add(offset, count, ExtentStatus.Data);
                }
                offset += count;
                length -= Math.Min(count, length);
                while (i < _files.Length - 1 && offset >= _starts[i + 1])
                {
                    i++;
                }
            }
        }

        public async ValueTask CloseAsync()
        {
            // On a network file system even closing may wait.
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Close();
        }

        private async ValueTask ReadAcrossAsync(
            int i, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            for (; buffer.Length > 0; i++)
            {
                int count = (int)Math.Min(buffer.Length, _starts[i + 1] - offset);
                if (count > 0)
                {
                    await _files[i].ReadAsync(buffer[..count], offset - _starts[i], cancellationToken).ConfigureAwait(false);
                }
                buffer = buffer[count..];
                offset += count;
            }
        }

        private async ValueTask WriteAcrossAsync(
            int i, ReadOnlyMemory<byte> data, long offset, bool durable, CancellationToken cancellationToken)
        {
            for (; data.Length > 0; i++)
            {
                int count = (int)Math.Min(data.Length, _starts[i + 1] - offset);
                if (count > 0)
                {
                    await _files[i].WriteAsync(data[..count], offset - _starts[i], durable, cancellationToken)
                        .ConfigureAwait(false);
                }
                data = data[count..];
                offset += count;
            }
        }

        private async ValueTask ForEachAsync(long offset, long length, Func<SparseFile, long, long, ValueTask> act)
        {
            for (int i = IndexOf(offset); length > 0; i++)
            {
                long count = Math.Min(length, _starts[i + 1] - offset);
                if (count > 0)
                {
                    await act(_files[i], offset - _starts[i], count).ConfigureAwait(false);
                }
                offset += count;
                length -= count;
            }
        }

        /// <summary>The file that holds an offset: the last one that begins there or before.</summary>
        private int IndexOf(long offset)
        {
            int low = 0;
            int high = _files.Length - 1;
            while (low < high)
            {
                int middle = (low + high + 1) >>> 1;
                (low, high) = _starts[middle] <= offset ? (middle, high) : (low, middle - 1);
            }
            return low;
        }

        private void Close()
        {
            foreach (SparseFile? file in _files)
            {
                file?.Dispose();
            }
        }

        private static bool IsFua(RequestFlags flags) => (flags & RequestFlags.Fua) != 0;
    }
}
