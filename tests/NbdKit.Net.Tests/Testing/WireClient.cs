using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A client that writes every byte by hand and judges every byte that comes back. It keeps no rule that the test does not
/// keep, waits for nothing longer than <see cref="Deadline"/>, and shares no code with the library.
/// </summary>
internal sealed partial class WireClient(IDuplexPipe pipe, Task<NbdDisconnect> ended) : IAsyncDisposable
{
    /// <summary>Real time that any single byte may take to arrive.</summary>
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    private bool _finished;

    /// <summary>How the server says that the connection ended.</summary>
    public Task<NbdDisconnect> Ended { get; } = ended;

    /// <summary>Sends bytes as they are.</summary>
    public async Task SendAsync(ReadOnlyMemory<byte> bytes) => await pipe.Output.WriteAsync(bytes);

    /// <summary>Closes the sending side, as a half closed socket does.</summary>
    public async Task FinishAsync()
    {
        _finished = true;
        await pipe.Output.CompleteAsync();
    }

    /// <summary>Closes both sides at once, as a reset does.</summary>
    public async Task CutAsync()
    {
        await FinishAsync();
        await pipe.Input.CompleteAsync();
    }

    /// <summary>Reads exactly so many bytes.</summary>
    public async Task<byte[]> ReadAsync(int count)
    {
        byte[] bytes = new byte[count];
        int have = 0;
        while (have < count)
        {
            ReadResult result = await WaitForBytesAsync($"{have} of {count} bytes");
            ReadOnlySequence<byte> part = result.Buffer.Slice(0, Math.Min(result.Buffer.Length, count - have));
            part.CopyTo(bytes.AsSpan(have));
            have += (int)part.Length;
            pipe.Input.AdvanceTo(part.End);
            if (have < count && result.IsCompleted && result.Buffer.Length == part.Length)
            {
                throw new EndOfStreamException($"The server closed the connection after {have} of {count} bytes.");
            }
        }
        return bytes;
    }

    /// <summary>Reads whatever comes until the server closes the connection.</summary>
    public async Task<byte[]> ReadToEndAsync()
    {
        var bytes = new MemoryStream();
        while (true)
        {
            ReadResult result = await WaitForBytesAsync("the end of the connection");
            foreach (ReadOnlyMemory<byte> segment in result.Buffer)
            {
                bytes.Write(segment.Span);
            }
            pipe.Input.AdvanceTo(result.Buffer.End);
            if (result.IsCompleted)
            {
                return bytes.ToArray();
            }
        }
    }

    /// <summary>Asserts that the server closes the connection without another byte, and that it says why.</summary>
    public async Task<NbdDisconnect> ExpectGoneAsync(NbdDisconnectReason? reason = null)
    {
        byte[] rest = await ReadToEndAsync();
        Assert.That(rest, Is.Empty, "the server sent bytes where it should have closed");
        return await ExpectEndAsync(reason);
    }

    /// <summary>Asserts that the server considers the connection over, and why.</summary>
    public async Task<NbdDisconnect> ExpectEndAsync(NbdDisconnectReason? reason = null)
    {
        NbdDisconnect end = await Ended.WaitAsync(Deadline);
        Assert.That(end.Detail, Is.Not.Empty);
        Assert.That(end.Reason, Is.Not.EqualTo(NbdDisconnectReason.Faulted), end.Detail);
        if (reason is not null)
        {
            Assert.That(end.Reason, Is.EqualTo(reason), end.Detail);
        }
        return end;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_finished)
        {
            await pipe.Output.CompleteAsync();
        }
        await pipe.Input.CompleteAsync();
    }

    private async Task<ReadResult> WaitForBytesAsync(string what)
    {
        using var deadline = new CancellationTokenSource(Deadline);
        try
        {
            return await pipe.Input.ReadAsync(deadline.Token);
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"Nothing came for {Deadline.TotalSeconds} s while waiting for {what}.");
        }
    }

    private static ushort U16(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt16BigEndian(bytes);

    private static uint U32(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt32BigEndian(bytes);

    private static ulong U64(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt64BigEndian(bytes);
}
