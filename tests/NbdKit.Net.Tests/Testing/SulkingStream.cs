using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>A stream that at some point does nothing any more but throw or hang, also when it is disposed of.</summary>
internal sealed class SulkingStream(Stream inner) : AsyncStream
{
    /// <summary>What everything throws from now on; null for nothing.</summary>
    public Exception? Fault { get; set; }

    /// <summary>What disposing throws; null for nothing.</summary>
    public Exception? DisposeFault { get; set; }

    /// <summary>Whether writes hang until they are cancelled.</summary>
    public bool HangsWriting { get; set; }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        int count = await inner.ReadAsync(buffer, cancellationToken);
        return Fault is null ? count : throw Fault;
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (Fault is not null)
        {
            throw Fault;
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
