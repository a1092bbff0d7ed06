using Microsoft.Win32.SafeHandles;

namespace NbdKit.Plugins;

// One context: the files, opened. Reads and writes give their offset with each call, so that any number may run at
// once.
public sealed partial class SplitPlugin
{
    private sealed class Disk : INbdPluginHandle
    {
        private readonly string[] _paths;
        private readonly SafeFileHandle[] _files;

        // The offset of each file in the disk, and at the end the size of the disk.
        private readonly long[] _starts;
        private readonly bool _readOnly;

        public Disk(IReadOnlyList<string> paths, bool readOnly)
        {
            _paths = [.. paths];
            _files = new SafeFileHandle[_paths.Length];
            _starts = new long[_paths.Length + 1];
            _readOnly = readOnly;
            try
            {
                for (int i = 0; i < _files.Length; i++)
                {
                    _files[i] = Open(_paths[i], ref _readOnly);
                    long length = RandomAccess.GetLength(_files[i]);
                    if (length > long.MaxValue - _starts[i])
                    {
                        throw new NbdException(NbdError.InvalidArgument, "the files are more than 2^63-1 bytes in all");
                    }
                    _starts[i + 1] = _starts[i] + length;
                }
            }
            catch
            {
                Close();
                throw;
            }
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
        {
            Size = _starts[^1],
            CanWrite = !_readOnly,
            CanFlush = true,
            CanFua = Support.Native,
            CanCache = Support.Emulate,
            // A flush is of the file, whoever wrote to it.
            CanMultiConn = true,
            IsBlocking = true,
        });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            Span<byte> rest = buffer.Span;
            for (int i = IndexOf(offset); rest.Length > 0; i++)
            {
                int count = (int)Math.Min(rest.Length, _starts[i + 1] - offset);
                ReadFile(i, rest[..count], offset - _starts[i]);
                rest = rest[count..];
                offset += count;
            }
            return default;
        }

        public ValueTask WriteAsync(
            ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            ReadOnlySpan<byte> rest = data.Span;
            int first = IndexOf(offset);
            int i = first;
            for (; rest.Length > 0; i++)
            {
                int count = (int)Math.Min(rest.Length, _starts[i + 1] - offset);
                if (count > 0)
                {
                    RandomAccess.Write(_files[i], rest[..count], offset - _starts[i]);
                }
                rest = rest[count..];
                offset += count;
            }
            if ((flags & RequestFlags.Fua) != 0)
            {
                Flush(first, i);
            }
            return default;
        }

        public ValueTask FlushAsync(CancellationToken cancellationToken)
        {
            if (!_readOnly)
            {
                Flush(0, _files.Length);
            }
            return default;
        }

        public ValueTask CloseAsync()
        {
            Close();
            return default;
        }

        private static SafeFileHandle Open(string path, ref bool readOnly)
        {
            if (!readOnly)
            {
                try
                {
                    return Open(path, FileAccess.ReadWrite);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    SafeFileHandle file = Open(path, FileAccess.Read);
                    readOnly = true;
                    return file;
                }
            }
            return Open(path, FileAccess.Read);
        }

        // Every context opens the files, and other programs may too.
        private static SafeFileHandle Open(string path, FileAccess access)
            => File.OpenHandle(path, FileMode.Open, access, FileShare.ReadWrite | FileShare.Delete);

        /// <summary>The file that holds an offset: the last one that begins there or before, which is not
        /// empty.</summary>
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

        private void ReadFile(int index, Span<byte> buffer, long offset)
        {
            while (buffer.Length > 0)
            {
                int count = RandomAccess.Read(_files[index], buffer, offset);
                if (count == 0)
                {
                    throw new NbdException(NbdError.IoError, $"{_paths[index]} has become shorter since it was opened");
                }
                buffer = buffer[count..];
                offset += count;
            }
        }

        private void Flush(int from, int to)
        {
            for (int i = from; i < to; i++)
            {
                RandomAccess.FlushToDisk(_files[i]);
            }
        }

        private void Close()
        {
            foreach (SafeFileHandle? file in _files)
            {
                file?.Dispose();
            }
        }
    }
}
