using System.IO.Pipelines;

namespace NbdKit.Tests.Testing;

/// <summary>Two ends of a connection in memory.</summary>
internal sealed class PipePair
{
    /// <summary>Creates a connection.</summary>
    /// <param name="nextCut">
    /// Where the server's input is cut, see <see cref="CuttingPipeReader"/>; null to pass it on as it comes.
    /// </param>
    /// <param name="serverOutputLimit">
    /// The bytes that the server may have written and the client not read; 0 for no limit.
    /// </param>
    public PipePair(Func<long, long>? nextCut = null, long serverOutputLimit = 0)
    {
        var toServer = new Pipe(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));
        var toClient = new Pipe(new PipeOptions(
            pauseWriterThreshold: serverOutputLimit,
            resumeWriterThreshold: serverOutputLimit / 2,
            useSynchronizationContext: false));
        PipeReader serverInput = nextCut is null ? toServer.Reader : new CuttingPipeReader(toServer.Reader, nextCut);
        Server = new End(serverInput, toClient.Writer);
        Client = new End(toClient.Reader, toServer.Writer);
    }

    public IDuplexPipe Server { get; }

    public IDuplexPipe Client { get; }

    /// <summary>Cuts a stream after every byte.</summary>
    public static long EveryByte(long position) => position + 1;

    /// <summary>Cuts a stream once.</summary>
    public static Func<long, long> Once(long at) => position => position < at ? at : long.MaxValue;

    private sealed class End(PipeReader input, PipeWriter output) : IDuplexPipe
    {
        public PipeReader Input { get; } = input;

        public PipeWriter Output { get; } = output;
    }
}
