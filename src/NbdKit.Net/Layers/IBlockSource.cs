namespace NbdKit.Layers;

/// <summary>Where the blocks of a cache come from.</summary>
internal interface IBlockSource
{
    /// <summary>Makes a block. Its bytes never change afterwards.</summary>
    /// <param name="position">Which one.</param>
    /// <param name="cancellationToken">Gives up.</param>
    ValueTask<byte[]> LoadAsync(long position, CancellationToken cancellationToken);
}
