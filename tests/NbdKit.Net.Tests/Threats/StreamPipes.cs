using System.IO.Pipelines;

namespace NbdKit.Tests.Threats;

/// <summary>A stream as a pair of pipes.</summary>
internal sealed class StreamPipes(Stream stream) : IDuplexPipe
{
    public PipeReader Input { get; } = PipeReader.Create(stream);

    public PipeWriter Output { get; } = PipeWriter.Create(stream);
}
