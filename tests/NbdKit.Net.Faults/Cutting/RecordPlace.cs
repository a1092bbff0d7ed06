using System.Buffers.Binary;

namespace NbdKit.Faults.Cutting;

/// <summary>
/// A place within an encrypted record that one side sends, wherever that one is in its stream: what comes before it, such as
/// signatures and names of sessions, is not equally long each time.
/// </summary>
/// <param name="record">The record, counted from the first that is encrypted, which ends the TLS handshake.</param>
/// <param name="within">How many of its bytes are sent.</param>
internal sealed class RecordPlace(int record, int within)
{
    private const int HeaderSize = 5;
    private const byte Encrypted = 23;

    private readonly List<int> _lengths = [];

    /// <summary>How long the encrypted records were, with their headers.</summary>
    public IReadOnlyList<int> Lengths => _lengths;

    /// <summary>Where the place is in the stream, if it is in what is written now.</summary>
    /// <param name="written">What is written now: text in the clear, or whole records.</param>
    /// <param name="sent">How much was written before.</param>
    public long? Find(ReadOnlySpan<byte> written, long sent)
    {
        long? found = null;
        for (int at = 0; at + HeaderSize <= written.Length && written[at] is >= 20 and <= Encrypted && written[at + 1] == 3;)
        {
            int length = HeaderSize + BinaryPrimitives.ReadUInt16BigEndian(written[(at + 3)..]);
            if (written[at] == Encrypted)
            {
                found = _lengths.Count == record ? sent + at + within : found;
                _lengths.Add(length);
            }
            at += length;
        }
        return found;
    }
}
