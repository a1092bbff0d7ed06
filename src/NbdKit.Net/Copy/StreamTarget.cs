namespace NbdKit.Copy;

/// <summary>A stream as destination: written in order.</summary>
internal sealed class StreamTarget : CopyTarget
{
    private const int ZeroBytes = 64 << 10;

    private readonly Stream _stream;
    private readonly CopyCounters _counters;
    private readonly byte[] _zeroes;
    private readonly bool _seeks;
    private bool _endsWithHole;

    public StreamTarget(Stream stream, NbdCopyOptions options, CopyCounters counters)
    {
        _stream = stream;
        _counters = counters;
        _seeks = options.DestinationIsZero && stream.CanSeek;
        _zeroes = new byte[_seeks ? 0 : ZeroBytes];
    }

    public override bool IsOrdered => true;

    public override bool WantsZeroes => _seeks;

    public override async ValueTask WriteAsync(
        int lane, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        _counters.AddWritten(data.Length);
        _endsWithHole = false;
        await _stream.WriteAsync(data, cancellationToken).ConfigureAwait(false);
    }

    public override async ValueTask ZeroAsync(int lane, long offset, long length, CancellationToken cancellationToken)
    {
        if (_seeks)
        {
            _stream.Seek(length, SeekOrigin.Current);
            _endsWithHole = true;
            return;
        }
        _counters.AddZeroed(length);
        while (length > 0)
        {
            int count = (int)Math.Min(length, _zeroes.Length);
            await _stream.WriteAsync(_zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            length -= count;
        }
    }

    public override ValueTask ZeroAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken)
        => ZeroAsync(lane, offset, zeroes.Length, cancellationToken);

    public override ValueTask EndAsync(CancellationToken cancellationToken)
    {
        if (_endsWithHole && _stream.Length < _stream.Position)
        {
            _stream.SetLength(_stream.Position);
        }
        return default;
    }

    public override async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        if (_stream is FileStream file)
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            // A pipe or terminal has nothing to bring to stable storage.
            file.Flush(flushToDisk: file.CanSeek);
            return;
        }
        await _stream.FlushAsync(cancellationToken).ConfigureAwait(false);
    }
}
