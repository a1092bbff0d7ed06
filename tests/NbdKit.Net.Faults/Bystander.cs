using System.Diagnostics;

namespace NbdKit.Faults;

/// <summary>A client of the same server that has nothing to do with the fault, and must be served correctly all the while.</summary>
internal sealed class Bystander : IAsyncDisposable
{
    private readonly NbdClient _client;
    private readonly byte[] _expected;
    private readonly int _length;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<double> _milliseconds = [];
    private readonly Task _work;

    /// <summary>Begins to read the disk in pieces, again and again, and to compare.</summary>
    /// <param name="client">A client that has opened the disk; disposed of with this.</param>
    /// <param name="expected">What the disk holds.</param>
    /// <param name="length">The bytes of one read.</param>
    public Bystander(NbdClient client, byte[] expected, int length = 4096)
    {
        _client = client;
        _expected = expected;
        _length = length;
        _work = Task.Run(WorkAsync);
    }

    /// <summary>How many reads were answered until now.</summary>
    public int Served
    {
        get
        {
            lock (_milliseconds)
            {
                return _milliseconds.Count;
            }
        }
    }

    /// <summary>Ends it, and fails if a read failed or was wrong.</summary>
    /// <returns>How many reads were served, the 99th percentile and the longest, in milliseconds.</returns>
    public async Task<(int Count, double P99, double Longest)> EndAsync()
    {
        await _stop.CancelAsync();
        await _work;
        if (_milliseconds.Count == 0)
        {
            throw new InvalidOperationException("The bystander was not served once.");
        }
        _milliseconds.Sort();
        return (_milliseconds.Count, _milliseconds[(_milliseconds.Count - 1) * 99 / 100], _milliseconds[^1]);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _client.DisposeAsync();
        _stop.Dispose();
    }

    private async Task WorkAsync()
    {
        byte[] buffer = new byte[_length];
        int at = 0;
        while (!_stop.IsCancellationRequested)
        {
            long begin = Stopwatch.GetTimestamp();
            await _client.ReadAsync(buffer, at);
            lock (_milliseconds)
            {
                _milliseconds.Add(Stopwatch.GetElapsedTime(begin).TotalMilliseconds);
            }
            if (!buffer.AsSpan().SequenceEqual(_expected.AsSpan(at, _length)))
            {
                throw new InvalidOperationException($"The bystander read wrong bytes at {at}.");
            }
            at = (at + _length) % (_expected.Length - _length + 1);
        }
    }
}
