namespace NbdKit.Tests.Testing;

/// <summary>A filter whose disposal is recorded as well.</summary>
internal sealed class DisposableFilter(RecordingFilter filter, CallRecorder recorder) : INbdFilter, IDisposable
{
    public string Name => filter.Name;

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => filter.GetReadyAsync(model, cancellationToken);

    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
        => filter.StartAsync(backend, cancellationToken);

    public ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        => filter.OpenAsync(context, cancellationToken);

    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
        => filter.CleanupAsync(backend, cancellationToken);

    public void Dispose() => recorder.Add(new RecordedCall(Name, "dispose"));
}
