namespace NbdKit.Tests.Testing;

/// <summary>A plugin whose disposal is recorded as well.</summary>
internal sealed class DisposablePlugin(RecordingPlugin plugin, CallRecorder recorder) : INbdPlugin, IAsyncDisposable
{
    public string Name => plugin.Name;

    public ThreadModel ThreadModel => plugin.ThreadModel;

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => plugin.GetReadyAsync(model, cancellationToken);

    public ValueTask StartAsync(CancellationToken cancellationToken) => plugin.StartAsync(cancellationToken);

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => plugin.OpenAsync(context, cancellationToken);

    public ValueTask CleanupAsync(CancellationToken cancellationToken) => plugin.CleanupAsync(cancellationToken);

    public ValueTask DisposeAsync()
    {
        recorder.Add(new RecordedCall(Name, "dispose"));
        return default;
    }
}
