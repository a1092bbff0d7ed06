using System.Text;
using NbdKit.Protocol;
using NbdKit.Server;

namespace NbdKit.Client;

// "Structured reply types", in structured and in extended chunks.
internal sealed partial class ReplyReader
{
    // A server must not decide how much memory its answer takes here.
    private const int MostChunks = 1 << 20;

    private const ushort ErrorBit = 0x8000;

    // What error chunks may hold besides the message, in types that nobody defined yet.
    private const int MaxErrorExtra = 4096;

    private ValueTask ReadChunkAsync(PendingCommand command, in ReplyHeader header, CancellationToken cancellationToken)
    {
        if (session.ExtendedHeaders && header.Offset != (ulong)command.Offset)
        {
            throw Violation($"a reply names the offset {header.Offset} of a request at {command.Offset}");
        }
        if (header.Length > uint.MaxValue)
        {
            throw Violation($"a chunk claims {header.Length} bytes of payload");
        }
        long length = (long)header.Length;
        if (((ushort)header.Type & ErrorBit) != 0)
        {
            return ReadErrorAsync(command, header.Type, length, cancellationToken);
        }
        switch (header.Type)
        {
            case ChunkType.None:
                if (length != 0 || !header.IsDone)
                {
                    throw Violation("a chunk of type NONE has a payload, or is not the last of its reply");
                }
                return default;
            case ChunkType.OffsetData:
                return ReadOffsetDataAsync(command, length, cancellationToken);
            case ChunkType.OffsetHole:
                return ReadOffsetHoleAsync(command, length, cancellationToken);
            case ChunkType.BlockStatus or ChunkType.BlockStatusExtended:
                return ReadBlockStatusAsync(
                    command, header.Type == ChunkType.BlockStatusExtended, length, cancellationToken);
            default:
                throw Violation($"a chunk has the type {(ushort)header.Type}, which is not known");
        }
    }

    // Offset 64, then the data.
    private async ValueTask ReadOffsetDataAsync(PendingCommand command, long length, CancellationToken cancellationToken)
    {
        if (length <= 8)
        {
            throw Violation($"a chunk of data has {length} bytes of payload, the offset included");
        }
        CheckContent(command);
        ulong offset = await ReadNumberAsync(8, cancellationToken).ConfigureAwait(false);
        int at = Place(command, offset, length - 8);
        AddChunk(command, at, (int)(length - 8), isHole: false);
        await ReadDataAsync(command, at, (int)(length - 8), cancellationToken).ConfigureAwait(false);
    }

    // Offset 64, hole size 32.
    private async ValueTask ReadOffsetHoleAsync(PendingCommand command, long length, CancellationToken cancellationToken)
    {
        if (length != 12)
        {
            throw Violation($"a hole has {length} bytes of payload instead of 12");
        }
        CheckContent(command);
        ulong offset = await ReadNumberAsync(8, cancellationToken).ConfigureAwait(false);
        long size = (long)await ReadNumberAsync(4, cancellationToken).ConfigureAwait(false);
        if (size == 0)
        {
            throw Violation("a hole of no bytes");
        }
        int at = Place(command, offset, size);
        AddChunk(command, at, (int)size, isHole: true);
        if (command.Chunks is null && transmission.TryTouch(command))
        {
            command.Buffer.Span.Slice(at, (int)size).Clear();
            transmission.EndTouch(command);
        }
    }

    private static void CheckContent(PendingCommand command)
    {
        if (command.Type != CommandType.Read)
        {
            throw Violation($"it sent data in reply to a command of type {(ushort)command.Type}");
        }
        if (command.ContentChunks++ > 0 && (command.Flags & CommandFlags.DontFragment) != 0)
        {
            throw Violation("it fragmented a reply that was not to be fragmented");
        }
    }

    /// <summary>Where in the buffer a range of the export lies, which must be inside the request and new.</summary>
    private static int Place(PendingCommand command, ulong offset, long length)
    {
        // All unsigned and without sums: an offset near 2^64 must not wrap into the buffer.
        ulong start = (ulong)command.Offset;
        ulong size = (ulong)command.Length;
        if (offset < start || (ulong)length > size || offset - start > size - (ulong)length)
        {
            throw Violation($"{length} bytes at {offset} lie outside of the read of {size} bytes at {start}");
        }
        long at = (long)(offset - start);
        if (!command.Coverage.TryAdd(at, length))
        {
            throw Violation($"{length} bytes at {offset} overlap what was sent before in the same reply");
        }
        if (command.Coverage.IsScattered)
        {
            throw new NbdClientException(
                NbdClientError.LimitExceeded,
                $"The server sent a read in more than {ReadCoverage.MaxPieces} pieces that lie apart.");
        }
        return (int)at;
    }

    private static void AddChunk(PendingCommand command, int at, int length, bool isHole)
    {
        if (command.Chunks is not { } chunks)
        {
            return;
        }
        long offset = command.Offset + at;
        if (chunks.Count > 0 && chunks[^1] is var last && last.IsHole == isHole && last.Offset + last.Length == offset)
        {
            chunks[^1] = last with { Length = last.Length + length };
            return;
        }
        if (chunks.Count >= MostChunks)
        {
            throw new NbdClientException(
                NbdClientError.LimitExceeded, $"The server sent a read in more than {MostChunks} chunks of holes and data.");
        }
        chunks.Add(new NbdReadChunk(offset, length, isHole));
    }

    // Error 32, message length 16, message; for ERROR_OFFSET then offset 64, for types to come anything.
    private async ValueTask ReadErrorAsync(
        PendingCommand command, ChunkType type, long length, CancellationToken cancellationToken)
    {
        if (length < 6)
        {
            throw Violation($"an error has {length} bytes of payload");
        }
        uint error = (uint)await ReadNumberAsync(4, cancellationToken).ConfigureAwait(false);
        int messageLength = (int)await ReadNumberAsync(2, cancellationToken).ConfigureAwait(false);
        long extra = length - 6 - messageLength;
        if (extra < 0)
        {
            throw Violation($"a message of {messageLength} bytes does not fit in an error of {length} bytes");
        }
        if (type == ChunkType.ErrorOffset ? extra != 8 : type == ChunkType.Error ? extra != 0 : extra > MaxErrorExtra)
        {
            throw Violation($"an error of type 0x{(ushort)type:x4} has {extra} bytes behind its message");
        }
        if (error == 0)
        {
            throw Violation("an error with the number 0");
        }
        string message = await ReadMessageAsync(messageLength, cancellationToken).ConfigureAwait(false);
        if (type == ChunkType.ErrorOffset)
        {
            ulong offset = await ReadNumberAsync(8, cancellationToken).ConfigureAwait(false);
            if (offset < (ulong)command.Offset || offset - (ulong)command.Offset >= (ulong)Math.Max(1, command.Length))
            {
                throw Violation($"an error at {offset} lies outside of the request");
            }
            message = $"{message}{(message.Length > 0 ? " " : "")}(at {offset})";
        }
        else
        {
            await _input.SkipAsync(extra, cancellationToken).ConfigureAwait(false);
        }
        // The first error is the one that is told.
        command.Fault ??= Fault(error, message, command);
    }

    private async ValueTask<string> ReadMessageAsync(int length, CancellationToken cancellationToken)
    {
        if (length == 0)
        {
            return "";
        }
        // At most 65,535 bytes, so it fits in the buffer.
        await NeedAsync(length, cancellationToken).ConfigureAwait(false);
        string message = Encoding.UTF8.GetString(_input.Buffered.Span[..length]);
        _input.Advance(length);
        return LogText.Clean(message, WireString.MaximumBytes);
    }

    /// <summary>The failure of a request: numbers that the protocol does not know count as EINVAL.</summary>
    private static NbdException Fault(uint number, string message, PendingCommand command)
    {
        var error = (NbdError)number;
        if (!Enum.IsDefined(error))
        {
            error = NbdError.InvalidArgument;
        }
        string text = message.Length > 0 ? message : $"The server answered with error {number}";
        return new NbdException(error, $"{command.Type} of {command.Length} bytes at {command.Offset}: {text}");
    }
}
