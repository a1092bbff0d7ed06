using System.Collections.Concurrent;
using NbdKit.Native;

namespace NbdKit.Transports;

/// <summary>
/// The pipes of a server. Each has two descriptors, so there are few: who finds none sends in another way.
/// </summary>
internal sealed class SplicePipes(int limit) : IDisposable
{
    private readonly ConcurrentQueue<SplicePipe> _free = new();
    private int _count;
    private volatile bool _disposed;

    /// <summary>An empty pipe, or null.</summary>
    public SplicePipe? TryRent()
    {
        if (_free.TryDequeue(out SplicePipe? pipe))
        {
            return pipe;
        }
        if (Interlocked.Increment(ref _count) <= limit && LinuxSplice.TryOpenPipe(out int input, out int output))
        {
            return new SplicePipe(input, output);
        }
        Interlocked.Decrement(ref _count);
        return null;
    }

    /// <summary>Takes a pipe back; one that still holds something of a connection that ended is closed.</summary>
    public void Return(SplicePipe? pipe)
    {
        if (pipe is null)
        {
            return;
        }
        if (pipe.IsEmpty && !_disposed)
        {
            _free.Enqueue(pipe);
            if (!_disposed)
            {
                return;
            }
            // Disposed of in the same moment: somebody has to close what came too late.
            CloseFree();
            return;
        }
        Interlocked.Decrement(ref _count);
        pipe.Close();
    }

    public void Dispose()
    {
        _disposed = true;
        CloseFree();
    }

    private void CloseFree()
    {
        while (_free.TryDequeue(out SplicePipe? pipe))
        {
            pipe.Close();
        }
    }
}
