using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>A stream that at some point does nothing any more but hang or throw.</summary>
internal sealed class SulkingStream(Stream inner) : AsyncStream
{
    private bool _ended;

    /// <summary>What writes throw once the other side has closed; null for nothing.</summary>
    public Exception? EndFault { get; set; }

    /// <summary>What disposing throws; null for nothing.</summary>
    public Exception? DisposeFault { get; set; }

    /// <summary>Whether writes hang until they are cancelled.</summary>
    public bool HangsWriting { get; set; }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        int count = await inner.ReadAsync(buffer, cancellationToken);
        _ended |= count == 0 && buffer.Length > 0;
        return count;
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (_ended && EndFault is not null)
        {
            throw EndFault;
        }
        if (HangsWriting)
        {
            await Task.Delay(Timeout.Infinite, cancellationToken);
        }
        await inner.WriteAsync(buffer, cancellationToken);
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            inner.Dispose();
        }
        base.Dispose(disposing);
        if (disposing && DisposeFault is not null)
        {
            throw DisposeFault;
        }
    }
}
