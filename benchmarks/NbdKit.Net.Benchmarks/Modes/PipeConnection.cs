using System.Buffers;
using System.IO.Pipelines;
using NbdKit.Benchmarks.Load;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Both ends of a connection in memory, and what a client says over it.</summary>
internal sealed class PipeConnection
{
    private readonly Pipe _toServer = new(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));
    private readonly Pipe _toClient = new(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));

    public PipeConnection() => Server = new End(_toClient.Writer, _toServer.Reader);

    public IDuplexPipe Server { get; }

    /// <summary>Enters transmission.</summary>
    public async ValueTask OpenAsync()
    {
        await SkipAsync(LoadHandshake.GreetingSize);
        await _toServer.Writer.WriteAsync(LoadHandshake.Go(""));
        OptionReplyType type;
        do
        {
            ReadResult result = await _toClient.Reader.ReadAtLeastAsync(20);
            (type, int length) = LoadHandshake.ParseOptionReply(result.Buffer.Slice(0, 20).ToArray());
            _toClient.Reader.AdvanceTo(result.Buffer.GetPosition(20));
            await SkipAsync(length);
        }
        while (type != OptionReplyType.Ack);
    }

    /// <summary>Sends requests and takes so many bytes of replies.</summary>
    public async ValueTask ExchangeAsync(ReadOnlyMemory<byte> requests, long replies)
    {
        await _toServer.Writer.WriteAsync(requests);
        await SkipAsync(replies);
    }

    /// <summary>Leaves.</summary>
    public void Close()
    {
        _toServer.Writer.Complete();
        _toClient.Reader.Complete();
    }

    private async ValueTask SkipAsync(long count)
    {
        while (count > 0)
        {
            ReadResult result = await _toClient.Reader.ReadAsync();
            long taken = Math.Min(count, result.Buffer.Length);
            if (taken == 0)
            {
                throw new EndOfStreamException("The server ended the connection.");
            }
            _toClient.Reader.AdvanceTo(result.Buffer.GetPosition(taken));
            count -= taken;
        }
    }

    private sealed class End(PipeWriter output, PipeReader input) : IDuplexPipe
    {
        public PipeReader Input { get; } = input;

        public PipeWriter Output { get; } = output;
    }
}
