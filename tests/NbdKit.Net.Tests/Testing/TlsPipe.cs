using System.IO.Pipelines;
using System.Net.Security;

namespace NbdKit.Tests.Testing;

/// <summary>An encrypted connection, as a client has it.</summary>
internal sealed class TlsPipe(SslStream tls) : IDuplexPipe
{
    public PipeReader Input { get; } = PipeReader.Create(tls, new StreamPipeReaderOptions(leaveOpen: true));

    public PipeWriter Output { get; } = PipeWriter.Create(tls, new StreamPipeWriterOptions(leaveOpen: true));
}
