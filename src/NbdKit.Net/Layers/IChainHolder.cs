namespace NbdKit.Layers;

/// <summary>A plugin that holds other chains: it is told its own place, so that they log where it does.</summary>
internal interface IChainHolder
{
    /// <summary>Called once, when the chain of the plugin is composed.</summary>
    void Bind(NbdBackend backend);
}
