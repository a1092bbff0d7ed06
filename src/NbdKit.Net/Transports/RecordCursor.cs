namespace NbdKit.Transports;

/// <summary>Follows the records of TLS in what a peer sends: 3 bytes, the length in 2 more, and so many bytes.</summary>
internal struct RecordCursor
{
    private const int HeaderBytes = 5;

    private int _header;
    private int _left;

    /// <summary>Whether the peer has sent a part of a record.</summary>
    public readonly bool IsInside => _header > 0;

    /// <summary>Goes on by what has come.</summary>
    public void Pass(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int count = 1;
            if (_header < HeaderBytes)
            {
                _left = (_left << 8) | bytes[0];
                if (++_header == HeaderBytes)
                {
                    _left &= 0xFFFF;
                }
            }
            else
            {
                count = Math.Min(_left, bytes.Length);
                _left -= count;
            }
            if (_header == HeaderBytes && _left == 0)
            {
                _header = 0;
            }
            bytes = bytes[count..];
        }
    }
}
