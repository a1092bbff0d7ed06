using System.Numerics;
using NbdKit.Buffers;
using NbdKit.Native;

namespace NbdKit.Plugins;

/// <summary>One open file or block device of <see cref="FilePlugin"/>.</summary>
internal sealed class FileHandle : INbdPluginHandle, ILender
{
    private const int PageBytes = 4096;

    private readonly SparseFile _file;
    private readonly WriteEviction? _eviction;

    /// <summary>Takes over an open file.</summary>
    public FileHandle(SparseFile file, FileCacheMode cache)
    {
        _file = file;
        if (cache == FileCacheMode.None && file.IsNative)
        {
            _eviction = new WriteEviction(file.Handle, file.NoteLoss);
        }
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = _file.Size,
        BlockSize = _file.IsBlockDevice ? DeviceBlockSize() : default,
        CanWrite = _file.CanWrite,
        CanFlush = true,
        CanTrim = _file.IsNative,
        CanZero = _file.IsNative ? Support.Native : Support.Emulate,
        CanFastZero = true,
        CanFua = Support.Native,
        CanCache = _file.IsNative ? Support.Native : Support.Emulate,
        CanExtents = _file.CanExtents,
        CanReadSparse = Support.Emulate,
        // All contexts share the page cache, and a flush of one syncs the file and not only its own writes.
        CanMultiConn = true,
        IsRotational = _file.IsBlockDevice && LinuxFile.IsRotational(_file.Handle),
    });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _eviction is null
            ? _file.ReadAsync(buffer, offset, cancellationToken)
            : ReadAndDropAsync(buffer, offset, cancellationToken);

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => _eviction is null
            ? _file.WriteAsync(data, offset, IsFua(flags), cancellationToken)
            : WriteAndDropAsync(_eviction, data, offset, IsFua(flags), cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => _file.FlushAsync(cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _file.TrimAsync(offset, length, IsFua(flags), cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _file.ZeroAsync(offset, length, flags, cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => _file.CacheAsync(offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => _file.ExtentsAsync(offset, length, (flags & RequestFlags.RequestOne) != 0, extents, cancellationToken);

    public bool TryLend(long offset, int length, Loan loan, bool forWrite)
        => loan.TakesFile && _eviction is null && _file.TryLend(offset, length, loan);

    public async ValueTask CloseAsync()
    {
        // On a network file system even closing may wait.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        _eviction?.Finish();
        _file.Dispose();
    }

    private async ValueTask ReadAndDropAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        // Dropping pages may wait for other processors.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await _file.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
        LinuxFile.Advise(_file.Handle, offset, buffer.Length, LinuxFile.AdviceDontNeed);
    }

    private async ValueTask WriteAndDropAsync(
        WriteEviction eviction, ReadOnlyMemory<byte> data, long offset, bool durable, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await _file.WriteAsync(data, offset, durable, cancellationToken).ConfigureAwait(false);
        eviction.Written(offset, data.Length);
    }

    private BlockSize DeviceBlockSize()
    {
        int logical = LinuxFile.LogicalSectorSize(_file.Handle);
        int physical = LinuxFile.PhysicalSectorSize(_file.Handle);
        int minimum = logical is > 0 and <= 65_536 && BitOperations.IsPow2(logical) ? logical : 1;
        int preferred = physical is > PageBytes and <= 32 << 20 && BitOperations.IsPow2(physical) ? physical : PageBytes;
        return new BlockSize(minimum, Math.Max(minimum, preferred));
    }

    private static bool IsFua(RequestFlags flags) => (flags & RequestFlags.Fua) != 0;
}
