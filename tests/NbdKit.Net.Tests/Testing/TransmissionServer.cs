using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>A server in memory, in the transmission phase, that says exactly what a test lets it say; and a client of it.</summary>
internal sealed class TransmissionServer : IAsyncDisposable
{
    private readonly PipePair _pipes = new();
    private readonly TransmissionExport _export;

    public TransmissionServer(TransmissionExport? export = null)
    {
        _export = export ?? new TransmissionExport();
        Client = new NbdClient(_export.Session(new PipeTransport(_pipes.Client)), _export.Options);
    }

    public NbdClient Client { get; }

    /// <summary>The next request, as a whole.</summary>
    public async Task<WireRequest> NextAsync()
    {
        byte[] header = await ReadAsync(_export.Extended ? 32 : 28);
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(header);
        Assert.That(magic, Is.EqualTo(_export.Extended ? Magic.ExtendedRequest : Magic.Request));
        ushort flags = BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(4));
        ushort type = BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(6));
        ulong length = _export.Extended
            ? BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(24))
            : BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(24));
        bool hasPayload = type == Cmd.Write || (_export.Extended && (flags & CmdFlag.PayloadLength) != 0);
        byte[] data = hasPayload ? await ReadAsync((int)length) : [];
        return new WireRequest(
            _export.Extended,
            flags,
            type,
            BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(8)),
            BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(16)),
            length,
            data);
    }

    public async Task<List<WireRequest>> NextAsync(int count)
    {
        var requests = new List<WireRequest>();
        while (requests.Count < count)
        {
            requests.Add(await NextAsync());
        }
        return requests;
    }

    /// <summary>Sends bytes, whatever they are.</summary>
    public async Task SendAsync(params byte[] bytes) => await _pipes.Server.Output.WriteAsync(bytes);

    /// <summary>Tells that a request succeeded, with the data of a read.</summary>
    public Task SucceedAsync(WireRequest request, params byte[] data) => SendAsync(Success(request, data));

    public Task FailAsync(WireRequest request, uint error)
        => SendAsync(_export.Structured || _export.Extended
            ? Chunk(request, ChunkType.Error, new WireBytes().U32(error).U16(0).ToArray())
            : Simple(request.Cookie, error));

    public byte[] Success(WireRequest request, params byte[] data)
    {
        if (!_export.Structured && !_export.Extended)
        {
            return [.. Simple(request.Cookie, 0), .. data];
        }
        return request.Type == Cmd.Read && data.Length > 0
            ? Data(request, request.Offset, data)
            : Chunk(request, ChunkType.None, []);
    }

    /// <summary>A chunk in the form that was negotiated.</summary>
    public byte[] Chunk(WireRequest request, ushort type, byte[] payload, bool done = true, ushort flags = 0)
        => Chunk(request, type, (uint)payload.Length, payload, done, flags);

    public byte[] Chunk(WireRequest request, ushort type, ulong length, byte[] payload, bool done = true, ushort flags = 0)
    {
        WireBytes bytes = new WireBytes().U32(_export.Extended ? Magic.ExtendedReply : Magic.Chunk)
            .U16((ushort)(flags | (done ? 1 : 0))).U16(type).U64(request.Cookie);
        return (_export.Extended ? bytes.U64(request.Offset).U64(length) : bytes.U32((uint)length)).Raw(payload).ToArray();
    }

    public byte[] Data(WireRequest request, ulong offset, byte[] data, bool done = true)
        => Chunk(request, ChunkType.OffsetData, new WireBytes().U64(offset).Raw(data).ToArray(), done);

    public byte[] Hole(WireRequest request, ulong offset, uint length, bool done = true)
        => Chunk(request, ChunkType.OffsetHole, new WireBytes().U64(offset).U32(length).ToArray(), done);

    public byte[] Status(WireRequest request, uint context, params (ulong Length, ulong Status)[] extents)
        => Status(request, context, done: true, extents);

    public byte[] Status(WireRequest request, uint context, bool done, params (ulong Length, ulong Status)[] extents)
    {
        WireBytes bytes = new WireBytes().U32(context);
        if (_export.Extended)
        {
            bytes.U32((uint)extents.Length);
        }
        foreach ((ulong length, ulong status) in extents)
        {
            bytes = _export.Extended ? bytes.U64(length).U64(status) : bytes.U32((uint)length).U32((uint)status);
        }
        return Chunk(request, _export.Extended ? (ushort)6 : ChunkType.BlockStatus, bytes.ToArray(), done);
    }

    public static byte[] Simple(ulong cookie, uint error)
        => new WireBytes().U32(Magic.SimpleReply).U32(error).U64(cookie).ToArray();

    /// <summary>Sends no more.</summary>
    public async Task CloseAsync() => await _pipes.Server.Output.CompleteAsync();

    /// <summary>Everything that the client still sends until it closes.</summary>
    public async Task<byte[]> ReadToEndAsync()
    {
        while (true)
        {
            ReadResult result = await _pipes.Server.Input.ReadAsync().AsTask().Soon();
            if (result.IsCompleted)
            {
                return result.Buffer.ToArray();
            }
            _pipes.Server.Input.AdvanceTo(result.Buffer.Start, result.Buffer.End);
        }
    }

    /// <summary>Whether the client has sent anything that was not read.</summary>
    public bool HasInput()
    {
        if (!_pipes.Server.Input.TryRead(out ReadResult result))
        {
            return false;
        }
        _pipes.Server.Input.AdvanceTo(result.Buffer.Start);
        return !result.Buffer.IsEmpty;
    }

    public async ValueTask DisposeAsync()
    {
        await CloseAsync();
        await Client.DisposeAsync().AsTask().Soon();
    }

    private async Task<byte[]> ReadAsync(int count)
    {
        if (count == 0)
        {
            return [];
        }
        ReadResult result = await _pipes.Server.Input.ReadAtLeastAsync(count).AsTask().Soon();
        Assert.That(result.Buffer.Length, Is.GreaterThanOrEqualTo(count), "the client closed");
        byte[] bytes = result.Buffer.Slice(0, count).ToArray();
        _pipes.Server.Input.AdvanceTo(result.Buffer.GetPosition(count));
        return bytes;
    }
}
