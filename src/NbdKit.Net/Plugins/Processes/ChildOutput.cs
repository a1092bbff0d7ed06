using System.Text;

namespace NbdKit.Plugins.Processes;

/// <summary>What a child prints, up to a limit.</summary>
internal sealed class ChildOutput
{
    private const int FirstSize = 512;

    private readonly int _limit;
    private readonly bool _drops;
    private Memory<byte> _buffer;

    private ChildOutput(Memory<byte> buffer, int limit, bool drops)
    {
        _buffer = buffer;
        _limit = limit;
        _drops = drops;
    }

    /// <summary>The bytes that were kept.</summary>
    public int Count { get; private set; }

    /// <summary>Whether there was more than the limit allows.</summary>
    public bool IsTooMuch { get; private set; }

    /// <summary>Whether what is beyond the limit is thrown away, so that the child goes on.</summary>
    public bool Drops => _drops;

    public ReadOnlySpan<byte> Bytes => _buffer.Span[..Count];

    /// <summary>Straight into the caller's memory, which is the limit.</summary>
    public static ChildOutput Into(Memory<byte> buffer) => new(buffer, buffer.Length, drops: false);

    /// <summary>Kept here; what is beyond the limit is an error.</summary>
    public static ChildOutput UpTo(int limit) => new(default, limit, drops: false);

    /// <summary>Kept here; what is beyond the limit is thrown away.</summary>
    public static ChildOutput FirstOf(int limit) => new(default, limit, drops: true);

    /// <summary>Reads to the end of the stream, or to the first byte that is too much.</summary>
    public async Task ReadAsync(Stream stream, CancellationToken cancellationToken)
    {
        byte[]? rest = null;
        while (true)
        {
            if (Count < _limit)
            {
                MakeRoom();
            }
            Memory<byte> room = Count < _limit ? _buffer[Count..] : rest ??= new byte[FirstSize];
            int count = await stream.ReadAsync(room, cancellationToken).ConfigureAwait(false);
            if (count == 0)
            {
                return;
            }
            if (rest is null)
            {
                Count += count;
                continue;
            }
            IsTooMuch = true;
            if (!_drops)
            {
                return;
            }
        }
    }

    /// <summary>As text; null if it is not valid UTF-8, or has a NUL in it.</summary>
    public string? Text()
    {
        try
        {
            return Bytes.Contains((byte)0) ? null : new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(Bytes);
        }
        catch (DecoderFallbackException)
        {
            return null;
        }
    }

    /// <summary>The first line with anything on it, fit for a message: short, and without control characters.</summary>
    public string FirstLine()
    {
        const int Longest = 400;
        string text = Encoding.UTF8.GetString(Bytes);
        string line = text.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).FirstOrDefault("");
        line = string.Concat(line.Select(c => char.IsControl(c) ? '?' : c));
        return line.Length <= Longest ? line : line[..Longest] + "...";
    }

    private void MakeRoom()
    {
        if (Count == _buffer.Length)
        {
            var larger = new byte[(int)Math.Min(_limit, Math.Max(FirstSize, 2L * Count))];
            Bytes.CopyTo(larger);
            _buffer = larger;
        }
    }
}
