namespace NbdKit.Layers;

/// <summary>
/// A handle of a plugin that holds other chains. Unlike other plugins it has last work to do, that of the chains, and is
/// told when that has to be quick.
/// </summary>
internal interface IChainHandle : INbdPluginHandle
{
    /// <summary>Called once after the last data call, before <see cref="INbdPluginHandle.CloseAsync"/>.</summary>
    ValueTask FinalizeAsync(CancellationToken quick);
}
