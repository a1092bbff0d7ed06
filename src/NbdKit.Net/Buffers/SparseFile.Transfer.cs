using System.Runtime.CompilerServices;
using NbdKit.Native;

namespace NbdKit.Buffers;

internal sealed partial class SparseFile
{
    // Benign races: at worst a call that fails is made once more.
    private bool _canReadNow;
    private bool _canWriteNow;
    private readonly InlinePace _writePace = new(TimeProvider.System);

    /// <summary>Fills the whole buffer; at once if the page cache holds the range.</summary>
    /// <exception cref="NbdException">The device failed, or the file has become shorter than the range.</exception>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        int done = 0;
        if (_canReadNow && buffer.Length <= InlineBytes && !buffer.IsEmpty)
        {
            _canReadNow = !IsUnsupported(LinuxFile.ReadNow(Handle, buffer, offset, out done));
        }
        return done == buffer.Length ? default : ReadOnPoolAsync(buffer[done..], offset + done, cancellationToken);
    }

    /// <summary>Lends a range that is to be read and that the page cache holds.</summary>
    public bool TryLend(long offset, int length, Loan loan)
    {
        // Once a reply has begun it cannot fail any more: whether the file still has the range is asked before.
        if (!IsNative
            || !LinuxFile.IsCached(Handle, offset, length)
            || LinuxFile.Size(Handle, out long size) != 0
            || size < offset + length)
        {
            return false;
        }
        loan.SetFile(Handle, offset, length);
        return true;
    }

    /// <summary>Writes all the data.</summary>
    /// <param name="data">The bytes to write.</param>
    /// <param name="offset">First byte to write.</param>
    /// <param name="durable">Whether to sync them before completing.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The device failed, or there is no space left.</exception>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, bool durable, CancellationToken cancellationToken)
    {
        int done = 0;
        if (_canWriteNow && data.Length <= InlineBytes && !durable && !data.IsEmpty)
        {
            _canWriteNow = !IsUnsupported(LinuxFile.WriteNow(Handle, data, offset, out done));
        }
        else if (IsNative && data.Length <= InlineWriteBytes && !durable && _writePace.TryBegin(out long start))
        {
            WriteHere(data.Span, offset);
            _writePace.End(start);
            return default;
        }
        return done == data.Length && !durable
            ? default
            : WriteOnPoolAsync(data[done..], offset + done, durable, cancellationToken);
    }

    private void WriteHere(ReadOnlySpan<byte> data, long offset)
    {
        try
        {
            RandomAccess.Write(Handle, data, offset);
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "write");
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadOnPoolAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (!OperatingSystem.IsWindows())
        {
            await Hop();
        }
        try
        {
            while (!buffer.IsEmpty)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int count = OperatingSystem.IsWindows()
                    ? await RandomAccess.ReadAsync(Handle, buffer, offset, cancellationToken).ConfigureAwait(false)
                    : RandomAccess.Read(Handle, buffer.Span, offset);
                if (count == 0)
                {
                    throw new NbdException(
                        NbdError.IoError, $"the file has become shorter: it ends at {offset} or before, not at {Size}");
                }
                buffer = buffer[count..];
                offset += count;
            }
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "read");
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WriteOnPoolAsync(
        ReadOnlyMemory<byte> data, long offset, bool durable, CancellationToken cancellationToken)
    {
        if (!OperatingSystem.IsWindows())
        {
            await Hop();
        }
        cancellationToken.ThrowIfCancellationRequested();
        if (OperatingSystem.IsWindows())
        {
            await WriteByFrameworkAsync(data, offset, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            WriteHere(data.Span, offset);
        }
        if (durable)
        {
            Sync();
        }
    }

    private async ValueTask WriteByFrameworkAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        try
        {
            await RandomAccess.WriteAsync(Handle, data, offset, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "write");
        }
    }

    private static bool IsUnsupported(int error) => error is Errno.NotSupported or Errno.NotImplemented or Errno.Invalid;
}
